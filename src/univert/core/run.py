"""A run: the folder that holds all a training produced, stage by stage, each done once."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from univert.core.errors import BadInputError
from univert.core.files import write_atomic
from univert.core.terminal import progress_lines


class Run:
    """A run folder with a record of its finished stages.

    A stage is finished when its record exists and carries the fingerprint of the inputs it had. Change
    an input (recipe, catalogue, an earlier stage) and the fingerprint differs: the stage runs again.

    Args:
        path: the folder; created if missing. It is made absolute: the working folder may change.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.path.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process alone; its progress goes into `progress.log`, too.

        Raises:
            BadInputError: another process is working on the run.
        """
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BadInputError(f"{self.path}: another process is working on this run") from None
            with progress_lines(logging.FileHandler(self.path / "progress.log", delay=True)):
                yield

    def finished(self, stage: str, inputs: str) -> dict[str, Any] | None:
        """What a stage recorded when it finished with these inputs (a fingerprint); None if it has not."""
        try:
            record = json.loads(self._record(stage).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return record["result"] if record.get("inputs") == inputs else None

    def finish(self, stage: str, inputs: str, result: dict[str, Any]) -> None:
        """Record that a stage finished, with JSON-able results that later stages or the report read."""
        write_atomic(self._record(stage), json.dumps({"inputs": inputs, "result": result}, indent=1))

    def forget(self, stage: str) -> None:
        """Take a stage's record away, before what it vouches for is replaced."""
        self._record(stage).unlink(missing_ok=True)

    def _record(self, stage: str) -> Path:
        return self.path / "stages" / f"{stage.replace('/', '--')}.json"
