"""Univert: one embedding model for a catalogue with many product verticals.

The public names load on first use, so that `import univert` stays instant.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "BadInputError": "univert.core.errors",
    "Catalogue": "univert.data.catalogue",
    "Embedder": "univert.models.embedder",
    "EmbedderConfig": "univert.models.embedder",
    "Recipe": "univert.training.recipe",
    "UnivertError": "univert.core.errors",
    "save_map_figure": "univert.report.map_figure",
    "train": "univert.main_job",
}

_PACKAGES = ("losses", "proxies")
"""Packages that export their public names: `univert.losses.HardMiner` works after `import univert`."""

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"univert.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'univert' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
