"""What each loss refuses, in its own words."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from univert.core.errors import BadInputError
from univert.losses import (
    DynamicProxyNCALoss,
    LiftedStructureLoss,
    NCALoss,
    NormalizedSoftmaxLoss,
    NPairsLoss,
    ProxyAnchorLoss,
    ProxyNCALoss,
    ProxyNPairsLoss,
    ProxyTripletLoss,
    SoftmaxLoss,
    SoftTripleLoss,
    StructuredClusteringLoss,
    TargetL2Loss,
    TripletMarginLoss,
)
from univert.proxies import StaticAssignment

ASSIGNED: list[Any] = [
    ProxyNCALoss,
    NormalizedSoftmaxLoss,
    SoftmaxLoss,
    ProxyTripletLoss,
    ProxyNPairsLoss,
    ProxyAnchorLoss,
]


@pytest.mark.parametrize("loss", ASSIGNED)
def test_assignments_must_fit(loss: Any) -> None:
    with pytest.raises(BadInputError, match="one owns all 1"):
        loss(1, 4)
    with pytest.raises(BadInputError, match="one owns all 1"):
        loss(2, 4, assignment=StaticAssignment.fractional(2, 1))
    with pytest.raises(BadInputError, match="num_classes = 4"):
        loss(4, 4, assignment=StaticAssignment.one_per_product(5))
    with pytest.raises(BadInputError, match="size >= 1"):
        loss(4, 0)
    with pytest.raises(BadInputError, match="same size, got 3 and 4"):
        loss(4, 4)(torch.ones(2, 3), torch.tensor([0, 1]))
    with pytest.raises(BadInputError, match=r"labels must be products in 0\.\.3, got 0\.\.4"):
        loss(4, 4)(torch.ones(2, 4), torch.tensor([0, 4]))


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda value: ProxyNCALoss(4, 4, value), "scale"),
        (lambda value: NormalizedSoftmaxLoss(4, 4, value), "temperature"),
        (lambda value: ProxyTripletLoss(4, 4, value), "margin"),
        (lambda value: ProxyNPairsLoss(4, 4, scale=value), "scale"),
        (lambda value: ProxyAnchorLoss(4, 4, alpha=value), "alpha"),
        (lambda value: SoftTripleLoss(4, 4, la=value), "la"),
        (lambda value: SoftTripleLoss(4, 4, gamma=value), "gamma"),
        (lambda value: DynamicProxyNCALoss(4, 4, value), "softmax_scale"),
        (lambda value: TripletMarginLoss(value), "margin"),
        (lambda value: NCALoss(value), "softmax_scale"),
        (lambda value: NPairsLoss(scale=value), "scale"),
        (lambda value: LiftedStructureLoss(scale=value), "scale"),
    ],
)
def test_scales_and_margins_are_positive_and_finite(make: Callable[[float], object], name: str, value: float) -> None:
    with pytest.raises(BadInputError, match=f"{name}.* must be positive and finite"):
        make(value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProxyNCALoss(4, 4, form="cosine"), "form must be one of softmax, paper"),  # type: ignore[arg-type]
        (lambda: ProxyNCALoss(4, 4, pooling="mean"), "pooling must be one of soft, nearest"),  # type: ignore[arg-type]
        (lambda: ProxyNCALoss(4, 4, label_smoothing=1.5), "label_smoothing must lie in 0..1"),
        (lambda: ProxyNCALoss(4, 4, negatives=0), "negatives must be a whole number of at least 1"),
        (lambda: ProxyNCALoss(4, 4, sparse=True), "sparse=True has no effect"),
        (lambda: ProxyNCALoss(4, 4, negatives=3, label_smoothing=0.1), "label_smoothing must be 0"),
        (lambda: SoftmaxLoss(4, 4, label_smoothing=-1), "label_smoothing"),
        (lambda: ProxyTripletLoss(4, 4, negatives="easy"), "negatives must be one of active"),  # type: ignore[arg-type]
        (lambda: ProxyNPairsLoss(4, 4, l2_reg_weight=-1), "l2_reg_weight"),
        (lambda: ProxyAnchorLoss(4, 4, margin=-1), "margin"),
        (lambda: SoftTripleLoss(1, 4), "one owns all 10"),
        (lambda: SoftTripleLoss(4, 4, tau=-1), "tau"),
        (lambda: SoftTripleLoss(4, 4, 1, tau=0.2), "tau = 0"),
        (lambda: DynamicProxyNCALoss(1, 4), "num_proxies"),
        (lambda: NCALoss(form="cosine"), "form must be"),  # type: ignore[arg-type]
        (lambda: NPairsLoss(pairs="two"), "pairs must be"),  # type: ignore[arg-type]
        (lambda: LiftedStructureLoss(float("nan")), "neg_margin"),
        (lambda: StructuredClusteringLoss(-0.1), "gamma"),
        (lambda: TripletMarginLoss(mining="easy"), "mining must be one of semi-hard, all, hard"),  # type: ignore[arg-type]
        (lambda: TripletMarginLoss(distance="cosine"), "distance must be one of squared"),  # type: ignore[arg-type]
        (lambda: TargetL2Loss()(torch.ones(2, 3), torch.ones(2, 4)), "same shape"),
    ],
)
def test_bad_settings_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        make()
