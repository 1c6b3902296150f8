"""Losses and miners: `from univert.losses import ProxyNCALoss, HardMiner`.

Constructors and `forward(embeddings, labels)` follow pytorch-metric-learning; `docs/losses` compares the losses. The
names load on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "DistanceWeightedMiner": "univert.losses.miners",
    "DynamicProxyNCALoss": "univert.losses.dynamic_proxy_nca_loss",
    "HardMiner": "univert.losses.miners",
    "LiftedStructureLoss": "univert.losses.lifted_structure_loss",
    "MinedLoss": "univert.losses.miners",
    "NCALoss": "univert.losses.nca_loss",
    "NPairsLoss": "univert.losses.n_pairs_loss",
    "NormalizedSoftmaxLoss": "univert.losses.normalized_softmax_loss",
    "ProxyAnchorLoss": "univert.losses.proxy_anchor_loss",
    "ProxyNCALoss": "univert.losses.proxy_nca_loss",
    "ProxyNPairsLoss": "univert.losses.proxy_n_pairs_loss",
    "ProxyTripletLoss": "univert.losses.proxy_triplet_loss",
    "SemiHardMiner": "univert.losses.miners",
    "SoftTripleLoss": "univert.losses.soft_triple_loss",
    "SoftmaxLoss": "univert.losses.softmax_loss",
    "StructuredClusteringLoss": "univert.losses.structured_clustering_loss",
    "TargetL2Loss": "univert.losses.target_l2_loss",
    "TripletMarginLoss": "univert.losses.triplet_margin_loss",
}


__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "miners":
        return importlib.import_module("univert.losses.miners")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'univert.losses' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
