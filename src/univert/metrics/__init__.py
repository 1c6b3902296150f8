"""How good retrieval is: rankings, clusters, intervals, paired comparison.

The public names take arrays or tensors, and load on first use.
"""

from __future__ import annotations

from univert.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Comparison": "univert.metrics.compare",
        "Difference": "univert.metrics.compare",
        "Evaluation": "univert.metrics.evaluate",
        "QueryOutcome": "univert.metrics.ranking",
        "bootstrap_interval": "univert.metrics.bootstrap",
        "compare_vectors": "univert.metrics.compare",
        "evaluate_vectors": "univert.metrics.evaluate",
        "map_at_r": "univert.metrics.ranking",
        "nmi": "univert.metrics.clustering",
        "rank_queries": "univert.metrics.ranking",
        "recall_at_k": "univert.metrics.ranking",
    },
)
