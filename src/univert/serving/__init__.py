"""From a model and an index to answers over HTTP.

The public names load on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Settings": "univert.serving.settings",
    "create_app": "univert.serving.app",
    "load_settings": "univert.serving.settings",
    "run_server": "univert.serving.server",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'univert.serving' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
