"""Who comes from pytorch-metric-learning changes an import; what else differs, `docs/losses/README.md` says."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from pytorch_metric_learning import losses as theirs
from pytorch_metric_learning.distances import CosineSimilarity, DotProductSimilarity, LpDistance
from pytorch_metric_learning.reducers import AvgNonZeroReducer, DivisorReducer, MeanReducer
from pytorch_metric_learning.regularizers import LpRegularizer, SparseCentersRegularizer
from torch import Tensor, nn

from tests.losses.watch import gradients
from univert import losses as ours

PRODUCTS, SIZE = 5, 8


@dataclass(frozen=True)
class Switch:
    """The same loss in both packages.

    `arguments` are handed to both by position; `only_ours` and `only_theirs` make up for defaults; `both` are objects
    of theirs, of which a distance says that rows of any length are compared, and not only of length 1.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    only_ours: dict[str, Any] = field(default_factory=dict)
    only_theirs: dict[str, Any] = field(default_factory=dict)
    both: dict[str, Any] = field(default_factory=dict)
    proxies: str | None = None

    def pair(self) -> tuple[nn.Module, nn.Module]:
        one = getattr(ours, self.name)(*self.arguments.values(), **self.only_ours, **self.both)
        other = getattr(theirs, self.name)(*self.arguments.values(), **self.only_theirs, **self.both)
        if self.proxies is not None:
            setattr(one, self.proxies, nn.Parameter(getattr(other, self.proxies).detach().clone()))
        return one, other


SHAPE = {"num_classes": PRODUCTS, "embedding_size": SIZE}
SCALE = {"softmax_scale": 3.0}
AS_IS, SQUARED_AS_IS = LpDistance(normalize_embeddings=False), LpDistance(normalize_embeddings=False, power=2)
MARGIN, ALL, ONE_PAIR = {"margin": 0.3}, {"mining": "all"}, {"pairs": "one", "scale": 1.0}
DOT, DOT_AS_IS = DotProductSimilarity(), DotProductSimilarity(normalize_embeddings=False)
SWITCHES = {
    "NCALoss": Switch("NCALoss", SCALE),
    "LiftedStructureLoss": Switch(
        "LiftedStructureLoss", {"neg_margin": 0.7, "pos_margin": 0.2}, only_ours={"scale": 1.0}
    ),
    "NPairsLoss": Switch("NPairsLoss", only_ours=ONE_PAIR),
    "TripletMarginLoss": Switch("TripletMarginLoss", {"margin": 0.3}, only_ours={"mining": "all", "distance": "plain"}),
    "TripletMarginLoss, squared": Switch(
        "TripletMarginLoss", {"margin": 0.3}, only_ours={"mining": "all"}, only_theirs={"distance": LpDistance(power=2)}
    ),
    "ProxyNCALoss": Switch("ProxyNCALoss", SHAPE, SCALE, SCALE, proxies="proxies"),
    "ProxyAnchorLoss": Switch("ProxyAnchorLoss", {**SHAPE, "margin": 0.2, "alpha": 16}, proxies="proxies"),
    "SoftTripleLoss": Switch(
        "SoftTripleLoss", {**SHAPE, "centers_per_class": 3, "la": 10, "gamma": 0.2, "margin": 0.05}, proxies="fc"
    ),
    "NormalizedSoftmaxLoss": Switch("NormalizedSoftmaxLoss", {**SHAPE, "temperature": 0.1}, proxies="W"),
    "NCALoss, cosine": Switch("NCALoss", SCALE, both={"distance": CosineSimilarity()}),
    "NCALoss, made unit length": Switch("NCALoss", SCALE, both={"distance": LpDistance(power=2)}),
    "NCALoss, as is": Switch("NCALoss", SCALE, both={"distance": SQUARED_AS_IS, "reducer": MeanReducer()}),
    "LiftedStructureLoss, as is": Switch("LiftedStructureLoss", only_ours={"scale": 1.0}, both={"distance": AS_IS}),
    "NPairsLoss, as is": Switch("NPairsLoss", only_ours=ONE_PAIR, both={"distance": DOT_AS_IS}),
    "NPairsLoss, regularised": Switch(
        "NPairsLoss",
        only_ours=ONE_PAIR,
        both={"distance": DOT, "embedding_regularizer": LpRegularizer(power=2), "embedding_reg_weight": 0.1},
    ),
    "TripletMarginLoss, mean": Switch(
        "TripletMarginLoss", MARGIN, ALL, both={"distance": DOT, "reducer": MeanReducer()}
    ),
    "TripletMarginLoss, smooth": Switch(
        "TripletMarginLoss", {**MARGIN, "swap": False, "smooth_loss": True}, ALL, both={"distance": LpDistance()}
    ),
    "TripletMarginLoss, swap": Switch(
        "TripletMarginLoss", {**MARGIN, "swap": True}, ALL, both={"distance": SQUARED_AS_IS}
    ),
    "TripletMarginLoss, cosine": Switch(
        "TripletMarginLoss", MARGIN, ALL, both={"distance": DOT, "reducer": AvgNonZeroReducer()}
    ),
    "ProxyAnchorLoss, objects": Switch(
        "ProxyAnchorLoss", SHAPE, both={"distance": DOT, "reducer": DivisorReducer()}, proxies="proxies"
    ),
    "SoftTripleLoss, regularised": Switch(
        "SoftTripleLoss",
        {**SHAPE, "centers_per_class": 3},
        both={"weight_regularizer": SparseCentersRegularizer(PRODUCTS, 3), "weight_reg_weight": 0.2},
        proxies="fc",
    ),
    "NormalizedSoftmaxLoss, as is": Switch(
        "NormalizedSoftmaxLoss", SHAPE, both={"distance": DOT_AS_IS, "weight_regularizer": LpRegularizer()}, proxies="W"
    ),
}
every_switch = pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES.keys())


def batch(seed: int, *, images: int = 20) -> tuple[Tensor, Tensor]:
    """Rows of unit length: their losses normalise, our losses on images alone take rows as they are."""
    x = torch.randn(images, SIZE, generator=torch.Generator().manual_seed(seed))
    labels = torch.randint(PRODUCTS - 1, (images,), generator=torch.Generator().manual_seed(seed))
    labels[-1] = PRODUCTS - 1  # one image alone
    return nn.functional.normalize(x), labels


def test_every_loss_that_both_have_is_compared() -> None:
    assert {switch.name for switch in SWITCHES.values()} == set(ours.__all__) & set(vars(theirs))


@every_switch
@pytest.mark.parametrize("seed", range(2))
def test_value_and_gradients_are_theirs(switch: Switch, seed: int) -> None:
    one, other = switch.pair()
    x, y = batch(seed)
    if "distance" in switch.both:
        x = x * torch.linspace(0.5, 2, len(x))[:, None]
    torch.testing.assert_close(one(x, y), other(x, y), rtol=1e-4, atol=1e-5)
    found, wanted = (gradients(lambda x, loss=loss: loss(x, y), x)[0] for loss in (one, other))
    if "distance" not in switch.both:  # theirs normalises inside and so has no gradient along the row
        found, wanted = (_along_the_sphere(x, gradient) for gradient in (found, wanted))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


@every_switch
def test_keyword_arguments_have_their_order_and_names(switch: Switch) -> None:
    """Those of their own constructor that we have come first and in their order; the rest of ours go by keyword."""
    known = [name for name in inspect.signature(getattr(theirs, switch.name)).parameters if name != "kwargs"]
    parameters = inspect.signature(getattr(ours, switch.name)).parameters
    positional = [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if switch.name == "ProxyNCALoss":
        known.append("softmax_scale")  # hidden in their **kwargs
    missing = {"TripletMarginLoss": {"triplets_per_anchor"}}.get(switch.name, set())
    assert positional == [name for name in known if name not in missing]


def defaults(make: Callable[..., Any]) -> dict[str, Any]:
    return {name: p.default for name, p in inspect.signature(make).parameters.items() if p.default is not p.empty}


def test_defaults_differ_only_where_the_documentation_says_so() -> None:
    differing = {
        (name, option): (mine[option], value)
        for name in {switch.name for switch in SWITCHES.values()}
        for mine in [defaults(getattr(ours, name))]
        for option, value in defaults(getattr(theirs, name)).items()
        if option in mine and mine[option] != value
    }
    assert differing == {
        ("TripletMarginLoss", "margin"): (0.2, 0.05),
        ("NCALoss", "softmax_scale"): (4.0, 1),  # which their ProxyNCALoss takes over
    }


def _along_the_sphere(x: Tensor, gradient: Tensor) -> Tensor:
    return gradient - (gradient * x).sum(1, keepdim=True) * x
