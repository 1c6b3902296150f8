"""A deployed model learns one more vertical, and the vectors in the index stay valid.

`growing` does it from end to end. `checks` says what it needs, and whether the result may be published; `learning` what
the grown model learns. `lineage` knows which models a run deployed one after the other, and loads neither PyTorch nor
weights.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "GrowResult": "univert.training.grow.growing",
    "Lineage": "univert.training.grow.lineage",
    "deployed_model": "univert.training.grow.lineage",
    "grow": "univert.training.grow.growing",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
