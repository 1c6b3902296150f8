"""Who comes from pytorch-metric-learning changes an import; what else differs, `docs/losses/README.md` says."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from pytorch_metric_learning import losses as theirs
from pytorch_metric_learning.distances import LpDistance
from torch import Tensor, nn

from tests.losses.watch import gradients
from univert import losses as ours

PRODUCTS, SIZE = 5, 8


@dataclass(frozen=True)
class Switch:
    """The same loss in both packages.

    `arguments` are handed to both by position, then by name; `only_ours` and `only_theirs` make up for defaults.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    only_ours: dict[str, Any] = field(default_factory=dict)
    only_theirs: dict[str, Any] = field(default_factory=dict)
    proxies: str | None = None
    transposed: bool = False

    def pair(self, *, by_name: bool = False) -> tuple[nn.Module, nn.Module]:
        makers = getattr(ours, self.name), getattr(theirs, self.name)
        if by_name:
            one = makers[0](**self.arguments, **self.only_ours)
            other = makers[1](**self.arguments, **self.only_theirs)
        else:
            one = makers[0](*self.arguments.values(), **self.only_ours)
            other = makers[1](*self.arguments.values(), **self.only_theirs)
        if self.proxies is not None:
            rows = one.bank.proxies.detach()
            getattr(other, self.proxies).data = (rows.T if self.transposed else rows).clone()
        return one, other


SHAPE = {"num_classes": PRODUCTS, "embedding_size": SIZE}
SCALE = {"softmax_scale": 3.0}
SWITCHES = {
    "NCALoss": Switch("NCALoss", SCALE),
    "LiftedStructureLoss": Switch(
        "LiftedStructureLoss", {"neg_margin": 0.7, "pos_margin": 0.2}, only_ours={"scale": 1.0}
    ),
    "NPairsLoss": Switch("NPairsLoss", only_ours={"pairs": "one", "scale": 1.0}),
    "TripletMarginLoss": Switch("TripletMarginLoss", {"margin": 0.3}, only_ours={"mining": "all", "distance": "plain"}),
    "TripletMarginLoss, squared": Switch(
        "TripletMarginLoss", {"margin": 0.3}, only_ours={"mining": "all"}, only_theirs={"distance": LpDistance(power=2)}
    ),
    "ProxyNCALoss": Switch("ProxyNCALoss", SHAPE, SCALE, SCALE, proxies="proxies"),
    "ProxyAnchorLoss": Switch("ProxyAnchorLoss", {**SHAPE, "margin": 0.2, "alpha": 16}, proxies="proxies"),
    "SoftTripleLoss": Switch(
        "SoftTripleLoss",
        {**SHAPE, "centers_per_class": 3, "la": 10, "gamma": 0.2, "margin": 0.05},
        proxies="fc",
        transposed=True,
    ),
    "NormalizedSoftmaxLoss": Switch(
        "NormalizedSoftmaxLoss", {**SHAPE, "temperature": 0.1}, proxies="W", transposed=True
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
@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradients_are_theirs(switch: Switch, by_name: bool, seed: int) -> None:
    one, other = switch.pair(by_name=by_name)
    x, y = batch(seed)
    torch.testing.assert_close(one(x, y), other(x, y), rtol=1e-4, atol=1e-5)
    # a tangent on the sphere: theirs normalises inside and so has no gradient along the row
    found, wanted = (_along_the_sphere(x, *gradients(lambda x, loss=loss: loss(x, y), x)) for loss in (one, other))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("switch", [s for s in SWITCHES.values() if s.proxies], ids=lambda switch: switch.name)
@pytest.mark.parametrize("length", [0.01, 100.0])
def test_losses_with_proxies_normalise_as_theirs(switch: Switch, length: float) -> None:
    one, other = switch.pair()
    x, y = batch(0)
    torch.testing.assert_close(one(x * length, y), other(x * length, y), rtol=1e-4, atol=1e-5)


@every_switch
def test_keyword_arguments_have_their_order_and_names(switch: Switch) -> None:
    """Those of their own constructor that we have come first and in their order; the rest of ours go by keyword."""
    known = [name for name in inspect.signature(getattr(theirs, switch.name)).parameters if name != "kwargs"]
    parameters = inspect.signature(getattr(ours, switch.name)).parameters
    positional = [name for name, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if switch.name == "ProxyNCALoss":
        known.append("softmax_scale")  # hidden in their **kwargs
    missing = {"TripletMarginLoss": {"swap", "smooth_loss", "triplets_per_anchor"}}.get(switch.name, set())
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
    assert defaults(ours.ProxyNCALoss)["softmax_scale"] == 9.0
    assert defaults(ours.NPairsLoss) == {"l2_reg_weight": 0.0, "pairs": "all", "scale": 8.0}
    assert defaults(ours.LiftedStructureLoss)["scale"] == 16.0
    assert defaults(ours.TripletMarginLoss) == {"margin": 0.2, "mining": "semi-hard", "distance": "squared"}


def test_their_triplets_can_be_handed_over() -> None:
    from pytorch_metric_learning.miners import TripletMarginMiner

    x, y = batch(0)
    triplets = TripletMarginMiner(margin=0.2, type_of_triplets="semihard")(x, y)
    one = ours.TripletMarginLoss(0.2, distance="plain")
    torch.testing.assert_close(one(x, y, triplets), theirs.TripletMarginLoss(0.2)(x, y, triplets))


@pytest.mark.parametrize("switch", [s for s in SWITCHES.values() if not s.proxies], ids=lambda switch: switch.name)
def test_losses_on_images_alone_want_unit_rows_where_theirs_make_them(switch: Switch) -> None:
    one, other = switch.pair()
    x, y = batch(0)
    torch.testing.assert_close(one(x, y), other(7 * x, y), rtol=1e-4, atol=1e-5)
    assert one(7 * x, y).item() != pytest.approx(one(x, y).item(), rel=0.1)


def test_images_whose_probability_underflows_count_here() -> None:
    scale = {"softmax_scale": 1e3}
    one, other = Switch("ProxyNCALoss", SHAPE, scale, scale, proxies="proxies").pair()
    x = nn.functional.normalize(one.bank.proxies.detach().roll(1, 0))  # each at another product's proxy
    y = torch.arange(PRODUCTS)
    assert other(x, y).isnan()  # all are left out: the mean of nothing
    assert one(x, y).item() > 100
    right = torch.cat([x, one.bank.proxies.detach()[:1]]), torch.cat([y, y[:1]])
    assert other(*right).item() < 1e-3  # one is right, the others are left out
    assert one(*right).item() > 100


def test_proxies_stay_float32_and_unknown_labels_are_errors() -> None:
    one, other = Switch("ProxyNCALoss", SHAPE, SCALE, SCALE, proxies="proxies").pair()
    x, y = batch(0)
    torch.testing.assert_close(other(x, y), other(torch.cat([x, x]), torch.cat([y, y + PRODUCTS])))
    with pytest.raises(ValueError, match=r"labels must be products in 0\.\.4"):
        one(torch.cat([x, x]), torch.cat([y, y + PRODUCTS]))
    one(x.half(), y), other(x.half(), y)
    assert one.bank.proxies.dtype == torch.float32
    assert other.proxies.dtype == torch.float16


def _along_the_sphere(x: Tensor, gradient: Tensor) -> Tensor:
    return gradient - (gradient * x).sum(1, keepdim=True) * x
