"""Losses by name: what a recipe can ask for."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from univert.core.errors import BadInputError
from univert.losses.dynamic_proxy_nca_loss import DynamicProxyNCALoss
from univert.losses.lifted_structure_loss import LiftedStructureLoss
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
from univert.losses.triplet_margin_loss import TripletMarginLoss
from univert.proxies.assignment import StaticAssignment

LossOption = float | int | bool | str
LossName = Literal[
    "triplet",
    "nca",
    "lifted-structure",
    "n-pairs",
    "structured-clustering",
    "softmax",
    "normalized-softmax",
    "proxy-nca",
    "proxy-triplet",
    "proxy-n-pairs",
    "proxy-anchor",
    "soft-triple",
    "dynamic-proxy-nca",
]


@dataclass(frozen=True)
class Entry:
    """A loss that a recipe can name.

    Attributes:
        make: its module.
        title: for people.
        proxies: how it holds proxies: `none`; `own`, a number of its own that nothing changes; `assigned` to
            products by a `StaticAssignment`; or `dynamic`, chosen by the images themselves.
    """

    make: type[nn.Module]
    title: str
    proxies: Literal["none", "own", "assigned", "dynamic"]


LOSSES: dict[LossName, Entry] = {
    "triplet": Entry(TripletMarginLoss, "Triplet, semi-hard", "none"),
    "nca": Entry(NCALoss, "NCA", "none"),
    "lifted-structure": Entry(LiftedStructureLoss, "Lifted structure", "none"),
    "n-pairs": Entry(NPairsLoss, "N-pairs", "none"),
    "structured-clustering": Entry(StructuredClusteringLoss, "Structured clustering", "none"),
    "softmax": Entry(SoftmaxLoss, "Soft-max", "assigned"),
    "normalized-softmax": Entry(NormalizedSoftmaxLoss, "Normalised soft-max", "assigned"),
    "proxy-nca": Entry(ProxyNCALoss, "Proxy-NCA", "assigned"),
    "proxy-triplet": Entry(ProxyTripletLoss, "Proxy-Triplet", "assigned"),
    "proxy-n-pairs": Entry(ProxyNPairsLoss, "Proxied N-pairs", "assigned"),
    "proxy-anchor": Entry(ProxyAnchorLoss, "Proxy-Anchor", "assigned"),
    "soft-triple": Entry(SoftTripleLoss, "SoftTriple", "own"),
    "dynamic-proxy-nca": Entry(DynamicProxyNCALoss, "Proxy-NCA, dynamic", "dynamic"),
}
_SET_BY_RECIPE = {"num_classes", "num_proxies", "embedding_size", "assignment", "seed"}


def make_loss(
    name: LossName,
    options: Mapping[str, LossOption],
    *,
    products: int,
    size: int,
    proxies_per_product: float = 1.0,
    seed: int = 0,
) -> nn.Module:
    """Build a loss.

    Args:
        name: one of `LOSSES`.
        options: keyword arguments of its module.
        products: how many there are; labels run from 0.
        size: D, the width of the embeddings.
        proxies_per_product: for losses that can have any number of proxies.
        seed: of proxies and their assignment.

    Raises:
        BadInputError: no such loss or option, or a value the loss refuses.

    Example:
        >>> make_loss("proxy-nca", {"softmax_scale": 16.0}, products=10, size=8, proxies_per_product=0.5).bank.count
        5
    """
    check_loss_options(name, options)
    make: Any = LOSSES[name].make
    kind = LOSSES[name].proxies
    module: nn.Module
    if kind == "none":
        module = make(**options)
    elif kind == "own":
        module = make(products, size, seed=seed, **options)
    elif kind == "dynamic":
        module = make(max(2, round(products * proxies_per_product)), size, seed=seed, **options)
    else:
        assignment = StaticAssignment.of_ratio(products, proxies_per_product, seed=seed)
        module = make(products, size, assignment=assignment, seed=seed, **options)
    return module


def compares_images(name: LossName) -> bool:
    """Whether a loss needs several images of a product in a batch."""
    return LOSSES[name].proxies in ("none", "dynamic")


def check_loss_options(name: str, options: Mapping[str, LossOption]) -> None:
    """Refuse a loss that does not exist, and options that it does not have.

    Raises:
        BadInputError: naming the nearest valid one; or a value of the wrong type.
    """
    if name not in LOSSES:
        raise BadInputError(f"loss must be one of {', '.join(LOSSES)}; got {name!r}{_near(name, LOSSES)}")
    parameters = inspect.signature(LOSSES[name].make).parameters
    valid = {key: parameters[key].default for key in parameters if key not in _SET_BY_RECIPE}
    for option, value in options.items():
        if option not in valid:
            there = ", ".join(sorted(valid)) or "none"
            raise BadInputError(
                f"loss_options: {name!r} has no option {option!r}{_near(option, valid)}; it has: {there}"
            )
        default = valid[option]
        kinds = (int, float) if type(default) is float else (int,) if default is None else (type(default),)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = "a whole number" if default is None else f"like its default {default!r}"
            raise BadInputError(f"loss_options: {option} of {name!r} must be {wanted}, got {value!r}")


def _near(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
