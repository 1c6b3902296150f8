"""Proxies: learned points that stand for products, and who belongs to which. `docs/proxies.md` tells more.

    from univert.proxies import ProxyBank, StaticAssignment

The names load on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Approximation": "univert.proxies.approximation",
    "DynamicAssignment": "univert.proxies.dynamic",
    "ProxyBank": "univert.proxies.bank",
    "StaticAssignment": "univert.proxies.assignment",
    "forget_rows": "univert.proxies.dynamic",
    "measure_bounds": "univert.proxies.bounds",
    "monitor_points": "univert.proxies.bounds",
    "nearest_proxies": "univert.proxies.dynamic",
    "start_from_points": "univert.proxies.dynamic",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'univert.proxies' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
