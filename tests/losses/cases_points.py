"""The losses on data points."""

from __future__ import annotations

from torch import Tensor

from tests.losses.case import Case
from tests.oracles import points as oracles
from univert.losses.lifted_structure_loss import LiftedStructureLoss
from univert.losses.n_pairs_loss import NPairsLoss
from univert.losses.nca_loss import NCALoss
from univert.losses.structured_clustering_loss import StructuredClusteringLoss
from univert.losses.triplet_margin_loss import TripletMarginLoss


def verticals(labels: Tensor) -> Tensor:
    return labels % 2


CASES = {
    "triplet": Case(TripletMarginLoss, TripletMarginLoss(0.5), lambda x, y: oracles.triplet_margin(x, y, 0.5)),
    "triplet-verticals": Case(
        TripletMarginLoss,
        lambda x, y: TripletMarginLoss(0.5)(x, y, verticals=verticals(y)),
        lambda x, y: oracles.triplet_margin(x, y, 0.5, verticals=verticals(y)),
    ),
    "triplet-plain": Case(
        TripletMarginLoss,
        TripletMarginLoss(0.5, distance="plain"),
        lambda x, y: oracles.triplet_margin(x, y, 0.5, plain=True),
    ),
    "triplet-all": Case(
        TripletMarginLoss,
        TripletMarginLoss(0.5, mining="all"),
        lambda x, y: oracles.triplet_margin(x, y, 0.5, mining="all"),
    ),
    "triplet-hard": Case(
        TripletMarginLoss,
        TripletMarginLoss(0.5, mining="hard", distance="plain"),
        lambda x, y: oracles.triplet_margin(x, y, 0.5, mining="hard", plain=True),
    ),
    "nca-softmax": Case(NCALoss, NCALoss(4.0), lambda x, y: oracles.nca(x, y, 4.0, "softmax")),
    "nca-paper": Case(NCALoss, NCALoss(4.0, form="paper"), lambda x, y: oracles.nca(x, y, 4.0, "paper")),
    "lifted-structure": Case(
        LiftedStructureLoss, LiftedStructureLoss(), lambda x, y: oracles.lifted_structure(x, y, 1.0, 0.0, 16.0)
    ),
    "lifted-structure-paper": Case(
        LiftedStructureLoss,
        LiftedStructureLoss(0.5, 0.25, scale=1.0),
        lambda x, y: oracles.lifted_structure(x, y, 0.5, 0.25, 1.0),
    ),
    "n-pairs": Case(NPairsLoss, NPairsLoss(l2_reg_weight=0.1), lambda x, y: oracles.n_pairs(x, y, 0.1, "all", 8.0)),
    "structured-clustering": Case(
        StructuredClusteringLoss, StructuredClusteringLoss(), lambda x, y: oracles.structured_clustering(x, y, 1.0)
    ),
    "structured-clustering-small-gamma": Case(
        StructuredClusteringLoss, StructuredClusteringLoss(0.1), lambda x, y: oracles.structured_clustering(x, y, 0.1)
    ),
}
