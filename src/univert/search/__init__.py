"""The index of a catalogue: made, kept up to date, and searched by distance and by column."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Hit": "univert.search.records",
    "Index": "univert.search.index",
    "IndexReader": "univert.search.reader",
    "IndexWriter": "univert.search.writer",
    "Picture": "univert.search.records",
    "add_vertical_to_index": "univert.search.indexing",
    "check_recall": "univert.search.exact",
    "exact_neighbours": "univert.search.exact",
    "index_catalogue": "univert.search.indexing",
    "search_image": "univert.search.index",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'univert.search' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
