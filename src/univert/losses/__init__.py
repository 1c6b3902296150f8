"""Losses: one a file, a pure function plus a thin module.

    from univert.losses import ProxyNCALoss

Constructors and `forward(embeddings, labels)` follow pytorch-metric-learning; `docs/losses` compares the losses.
"""

from univert.losses.dynamic_proxy_nca_loss import DynamicProxyNCALoss
from univert.losses.lifted_structure_loss import LiftedStructureLoss
from univert.losses.mined_loss import MinedLoss
from univert.losses.n_pairs_loss import NPairsLoss
from univert.losses.nca_loss import NCALoss
from univert.losses.normalized_softmax_loss import NormalizedSoftmaxLoss
from univert.losses.proxy_anchor_loss import ProxyAnchorLoss
from univert.losses.proxy_n_pairs_loss import ProxyNPairsLoss
from univert.losses.proxy_nca_loss import ProxyNCALoss
from univert.losses.proxy_triplet_loss import ProxyTripletLoss
from univert.losses.soft_triple_loss import SoftTripleLoss
from univert.losses.softmax_loss import SoftmaxLoss
from univert.losses.structured_clustering_loss import StructuredClusteringLoss
from univert.losses.target_l2_loss import TargetL2Loss
from univert.losses.triplet_margin_loss import TripletMarginLoss

__all__ = [
    "DynamicProxyNCALoss",
    "LiftedStructureLoss",
    "MinedLoss",
    "NCALoss",
    "NPairsLoss",
    "NormalizedSoftmaxLoss",
    "ProxyAnchorLoss",
    "ProxyNCALoss",
    "ProxyNPairsLoss",
    "ProxyTripletLoss",
    "SoftTripleLoss",
    "SoftmaxLoss",
    "StructuredClusteringLoss",
    "TargetL2Loss",
    "TripletMarginLoss",
]
