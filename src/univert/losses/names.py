"""Losses by name: what a recipe can ask for. Nothing here imports torch before a loss is made."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from univert.core.errors import BadInputError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

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
class LossEntry:
    """A loss that a recipe can name: its module, its name for people, and the keyword arguments a recipe may set.

    It holds no proxies; or `own` ones, whose number nothing changes; or some `assigned` to products by a
    `StaticAssignment`; or `dynamic` ones, chosen by the images themselves.
    """

    class_name: str
    title: str
    options: Mapping[str, type[LossOption]]
    proxies: Literal["none", "own", "assigned", "dynamic"] = "none"
    takes_miner: bool = False

    @property
    def has_bank(self) -> bool:
        """Whether a recipe says how many proxies there are, and where they start."""
        return self.proxies in ("assigned", "dynamic")


_SOFTMAX = {"pooling": str, "label_smoothing": float}
LOSSES: dict[LossName, LossEntry] = {
    "triplet": LossEntry(
        "TripletMarginLoss", "Triplet, semi-hard", {"margin": float, "mining": str, "distance": str}, takes_miner=True
    ),
    "nca": LossEntry("NCALoss", "NCA", {"softmax_scale": float, "form": str}),
    "lifted-structure": LossEntry(
        "LiftedStructureLoss", "Lifted structure", {"neg_margin": float, "pos_margin": float, "scale": float}
    ),
    "n-pairs": LossEntry("NPairsLoss", "N-pairs", {"l2_reg_weight": float, "pairs": str, "scale": float}),
    "structured-clustering": LossEntry("StructuredClusteringLoss", "Structured clustering", {"gamma": float}),
    "softmax": LossEntry("SoftmaxLoss", "Soft-max", {"use_bias": bool, **_SOFTMAX}, "assigned"),
    "normalized-softmax": LossEntry(
        "NormalizedSoftmaxLoss", "Normalised soft-max", {"temperature": float, **_SOFTMAX}, "assigned"
    ),
    "proxy-nca": LossEntry(
        "ProxyNCALoss",
        "Proxy-NCA",
        {"softmax_scale": float, "form": str, **_SOFTMAX, "negatives": int, "sparse": bool},
        "assigned",
    ),
    "proxy-triplet": LossEntry("ProxyTripletLoss", "Proxy-Triplet", {"margin": float, "negatives": str}, "assigned"),
    "proxy-n-pairs": LossEntry(
        "ProxyNPairsLoss", "Proxied N-pairs", {"scale": float, "l2_reg_weight": float}, "assigned"
    ),
    "proxy-anchor": LossEntry("ProxyAnchorLoss", "Proxy-Anchor", {"margin": float, "alpha": float}, "assigned"),
    "soft-triple": LossEntry(
        "SoftTripleLoss",
        "SoftTriple",
        {"centers_per_class": int, "la": float, "gamma": float, "margin": float, "tau": float},
        "own",
    ),
    "dynamic-proxy-nca": LossEntry(
        "DynamicProxyNCALoss", "Proxy-NCA, dynamic", {"softmax_scale": float, "sparse": bool}, "dynamic"
    ),
}


def compares_images(name: LossName) -> bool:
    """Whether a loss needs several images of a product in a batch."""
    return LOSSES[name].proxies in ("none", "dynamic")


def check_loss_options(name: str, options: Mapping[str, LossOption]) -> None:
    """Refuse a loss that does not exist, and options that it does not have; the loss checks their values when made.

    Raises:
        BadInputError: naming the nearest valid one; or a value of the wrong type.
    """
    if name not in LOSSES:
        raise BadInputError(f"loss must be one of {', '.join(LOSSES)}; got {name!r}: {did_you_mean(name, LOSSES)}")
    types = LOSSES[name].options
    for option, value in options.items():
        if option not in types:
            raise BadInputError(
                f"loss_options: {name!r} has no option {option!r}: {did_you_mean(option, types)}; "
                f"it has {', '.join(types)}"
            )
        kind = types[option]
        fits = isinstance(value, (int, float) if kind is float else kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            words = {float: "a number", int: "a whole number", bool: "true or false", str: "a word"}
            raise BadInputError(f"loss_options: {option} of {name!r} must be {words[kind]}, got {value!r}")


def make_loss(
    name: LossName,
    options: Mapping[str, LossOption],
    *,
    products: int,
    size: int,
    proxies_per_product: float = 1.0,
    seed: int = 0,
) -> nn.Module:
    """Build a loss for embeddings of width `size`; `proxies_per_product` counts where it can have any number of them.

    Example:
        >>> make_loss("proxy-nca", {"softmax_scale": 16.0}, products=10, size=8, proxies_per_product=0.5).bank.count
        5
    """
    check_loss_options(name, options)
    entry = LOSSES[name]
    make: Any = getattr(importlib.import_module("univert.losses"), entry.class_name)
    arguments: dict[str, Any] = {} if entry.proxies == "none" else {"embedding_size": size, "seed": seed}
    if entry.proxies in ("own", "assigned"):
        arguments["num_classes"] = products
    if entry.proxies == "assigned":
        from univert.proxies.assignment import StaticAssignment

        arguments["assignment"] = StaticAssignment.of_ratio(products, proxies_per_product, seed=seed)
    if entry.proxies == "dynamic":
        arguments["num_proxies"] = max(2, round(products * proxies_per_product))
    module: nn.Module = make(**arguments, **options)
    return module
