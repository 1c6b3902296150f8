"""The report of a run: one HTML page with tables, charts, pictures and the map; and tables for a terminal."""

from __future__ import annotations

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "render_grid": "univert.report.search_page",
        "render_items": "univert.report.search_page",
        "report_run": "univert.report.page",
    },
)
