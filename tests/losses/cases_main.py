"""The loss to learning targets."""

from __future__ import annotations

from torch import Tensor, nn

from tests.losses.case import Case, proxies
from tests.oracles import losses as oracles
from univert.losses.target_l2_loss import TargetL2Loss, target_l2_loss


def targets(labels: Tensor) -> Tensor:
    return nn.functional.normalize(proxies(), dim=1)[labels]


CASES = {
    "target-l2": Case(
        TargetL2Loss, lambda x, y: target_l2_loss(x, targets(y)), lambda x, y: oracles.target_l2(x, targets(y))
    )
}
