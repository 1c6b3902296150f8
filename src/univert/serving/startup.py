"""What a process that could not start says by its exit status."""

from __future__ import annotations

import sys
from typing import Any

from fastapi import FastAPI
from uvicorn.lifespan.on import LifespanOn

from univert.core.errors import BadInputError
from univert.serving.lifecycle import Lifecycle

PASSING = 1
"""The exit status after a failure that may pass."""


class StartupStatus(LifespanOn):
    """uvicorn's way of starting the application, with two exit statuses instead of one.

    What is wrong in the settings, the model or the index stays wrong: uvicorn's own status, upon which a supervisor of
    several workers gives up. All else may pass, as an object store that is away does: the process ends with 1, and is
    started again, by that supervisor or by what runs the service.
    """

    async def startup(self) -> None:
        """Start the application.

        Raises:
            SystemExit: with 1: it could not start just now.
        """
        await super().startup()
        if self.should_exit and not isinstance(_lifecycle(self.config.loaded_app).failure, BadInputError):
            sys.exit(PASSING)


def _lifecycle(app: Any) -> Lifecycle:
    while not isinstance(app, FastAPI):  # uvicorn puts layers of its own around it
        app = app.app
    lifecycle: Lifecycle = app.state.service.lifecycle
    return lifecycle
