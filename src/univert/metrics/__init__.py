"""How good retrieval is: rankings, clusters, intervals, paired comparison.

The public names take arrays or tensors, and load on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Comparison": "univert.metrics.compare",
    "Difference": "univert.metrics.compare",
    "Evaluation": "univert.metrics.evaluate",
    "QueryOutcome": "univert.metrics.ranking",
    "bootstrap_interval": "univert.metrics.bootstrap",
    "compare_vectors": "univert.metrics.compare",
    "evaluate_query_gallery": "univert.metrics.evaluate",
    "evaluate_vectors": "univert.metrics.evaluate",
    "map_at_r": "univert.metrics.ranking",
    "nmi": "univert.metrics.clustering",
    "rank_queries": "univert.metrics.ranking",
    "recall_at_k": "univert.metrics.ranking",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'univert.metrics' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
