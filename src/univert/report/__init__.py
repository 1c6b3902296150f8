"""The report of a run: one HTML page with tables, charts, pictures and the map; and tables for a terminal."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "render_grid": "univert.report.search_page",
    "report_run": "univert.report.page",
    "save_map_figure": "univert.report.map_figure",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'univert.report' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
