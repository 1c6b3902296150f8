"""What a photo shows, named from its neighbours by a calibrated vote."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "AttributeCalibration": "univert.identity.vote",
    "Calibration": "univert.identity.vote",
    "CalibrationConfig": "univert.identity.calibration",
    "calibrate": "univert.identity.calibration",
    "find_calibration": "univert.identity.vote",
    "identify": "univert.identity.vote",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'univert.identity' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
