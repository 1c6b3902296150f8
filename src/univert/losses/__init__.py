"""Losses and miners: `from univert.losses import ProxyNCALoss, HardMiner`.

Constructors and `forward(embeddings, labels)` follow pytorch-metric-learning; `docs/losses` compares the losses.
"""

from univert.core.lazy import lazy_exports

_MINERS = ("DistanceWeightedMiner", "HardMiner", "MinedLoss", "SemiHardMiner")

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "DynamicProxyNCALoss": "univert.losses.dynamic_proxy_nca_loss",
        "LiftedStructureLoss": "univert.losses.lifted_structure_loss",
        "NCALoss": "univert.losses.nca_loss",
        "NPairsLoss": "univert.losses.n_pairs_loss",
        "NormalizedSoftmaxLoss": "univert.losses.normalized_softmax_loss",
        "ProxyAnchorLoss": "univert.losses.proxy_anchor_loss",
        "ProxyNCALoss": "univert.losses.proxy_nca_loss",
        "ProxyNPairsLoss": "univert.losses.proxy_n_pairs_loss",
        "ProxyTripletLoss": "univert.losses.proxy_triplet_loss",
        "SoftTripleLoss": "univert.losses.soft_triple_loss",
        "SoftmaxLoss": "univert.losses.softmax_loss",
        "StructuredClusteringLoss": "univert.losses.structured_clustering_loss",
        "TargetL2Loss": "univert.losses.target_l2_loss",
        "TripletMarginLoss": "univert.losses.triplet_margin_loss",
        **dict.fromkeys(_MINERS, "univert.losses.miners"),
    },
)
