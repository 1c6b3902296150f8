"""The triplet and L2 losses."""

from __future__ import annotations

from torch import Tensor, nn

from tests.losses.case import Case, proxies
from tests.oracles import losses as oracles
from univert.losses.target_l2_loss import TargetL2Loss, target_l2_loss
from univert.losses.triplet_margin_loss import TripletMarginLoss, triplet_margin_loss


def targets(labels: Tensor) -> Tensor:
    return nn.functional.normalize(proxies(), dim=1)[labels]


def verticals(labels: Tensor) -> Tensor:
    return labels % 2


CASES = {
    "triplet": Case(
        TripletMarginLoss,
        lambda x, y: triplet_margin_loss(x, y, margin=0.5),
        lambda x, y: oracles.triplet_margin(x, y, 0.5, None),
    ),
    "triplet-verticals": Case(
        TripletMarginLoss,
        lambda x, y: TripletMarginLoss(0.5)(x, y, verticals(y)),
        lambda x, y: oracles.triplet_margin(x, y, 0.5, verticals(y)),
    ),
    "target-l2": Case(
        TargetL2Loss,
        lambda x, y: target_l2_loss(x, targets(y)),
        lambda x, y: oracles.target_l2(x, targets(y)),
    ),
}
