"""A model at work without training: ONNX Runtime, PyTorch, and the export from one to the other."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Engine": "univert.models.runtime.engine",
    "export_int8": "univert.models.runtime.int8",
    "export_onnx": "univert.models.runtime.onnx_export",
    "load_engine": "univert.models.runtime.engine",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'univert.models.runtime' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
