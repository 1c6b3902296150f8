"""The losses of the property grid, each with its oracle; a new loss gets a line here and a formula in tests/oracles."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles import dynamic, mining, points, proxy_losses
from univert.losses import (
    DynamicProxyNCALoss,
    HardMiner,
    LiftedStructureLoss,
    MinedLoss,
    NCALoss,
    NormalizedSoftmaxLoss,
    NPairsLoss,
    ProxyAnchorLoss,
    ProxyNCALoss,
    ProxyNPairsLoss,
    ProxyTripletLoss,
    SemiHardMiner,
    SoftmaxLoss,
    SoftTripleLoss,
    StructuredClusteringLoss,
    TargetL2Loss,
    TripletMarginLoss,
)
from univert.proxies import StaticAssignment

SIZE, PRODUCTS = 6, 4
ONE = torch.arange(PRODUCTS)[:, None]
TABLES = {
    "one": ONE,
    "several": torch.tensor([[0, 4], [1, 5], [6, 2], [3, 3]]),  # the last product has one, named twice
    "shared": torch.tensor([[2], [0], [2], [1]]),
}


def proxies(count: int = PRODUCTS) -> Tensor:
    return torch.randn(count, SIZE, generator=torch.Generator().manual_seed(7)) * 2


def unit_targets(labels: Tensor) -> Tensor:
    return nn.functional.normalize(proxies(), dim=1)[labels]


@dataclass(frozen=True)
class Case:
    """A loss, and its oracle as a function of embeddings, the rows of the bank (none without one) and labels."""

    make: Callable[[], nn.Module]
    oracle: Callable[[Tensor, Tensor, Tensor], Tensor]
    call: Callable[[nn.Module, Tensor, Tensor], Tensor] = lambda module, x, y: module(x, y)

    def module(self) -> nn.Module:
        """The loss with the same proxies each time."""
        module = self.make()
        if hasattr(module, "bank"):
            module.bank.proxies.data = proxies(module.bank.count)
        return module

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return self.call(self.module(), x, y)


def assigned(loss: type[nn.Module], oracle: Callable[..., Tensor], table: Tensor = ONE, **options: Any) -> Case:
    """A loss whose options its oracle has, too."""

    def make() -> nn.Module:
        assignment = StaticAssignment(table, int(table.max()) + 1)
        return loss(PRODUCTS, SIZE, assignment=assignment, **options)  # type: ignore[call-arg]

    def own(labels: Tensor) -> list[list[int]]:
        return [sorted(set(table[label].tolist())) for label in labels.tolist()]

    return Case(make, lambda x, p, y: oracle(x, p, own(y), **options))


def images(make: Callable[[], nn.Module], oracle: Callable[[Tensor, Tensor], Tensor]) -> Case:
    return Case(make, lambda x, p, y: oracle(x, y))


def softmax(label_smoothing: float) -> Case:
    bias = proxies()[:, 0].clone()
    case = assigned(SoftmaxLoss, proxy_losses.softmax, label_smoothing=label_smoothing)

    def make() -> nn.Module:
        module = case.make()
        module.bias.data = bias.clone()  # type: ignore[union-attr]
        return module

    def oracle(x: Tensor, p: Tensor, y: Tensor) -> Tensor:
        return proxy_losses.softmax(x, p, y[:, None].tolist(), bias, label_smoothing)

    return Case(make, oracle)


def soft_triple(centers: int, tau: float, la: float = 20.0, gamma: float = 0.1) -> Case:
    return Case(
        lambda: SoftTripleLoss(PRODUCTS, SIZE, centers, la, gamma, tau=tau),
        lambda x, p, y: proxy_losses.soft_triple(x, p.view(PRODUCTS, centers, SIZE), y, la, gamma, 0.01, tau),
    )


def triplet(margin: float = 0.5, **options: Any) -> Case:
    plain, mining_name = options.get("distance") == "plain", options.get("mining", "semi-hard")
    return images(
        lambda: TripletMarginLoss(margin, **options),
        lambda x, y: points.triplet_margin(x, y, margin, plain=plain, mining=mining_name),
    )


def of_tables(name: str, loss: type[nn.Module], oracle: Callable[..., Tensor], **options: Any) -> dict[str, Case]:
    return {f"{name}-{key}": assigned(loss, oracle, table, **options) for key, table in TABLES.items()}


NCA, DOTS = proxy_losses.proxy_nca, proxy_losses.proxy_n_pairs
CASES: dict[str, Case] = {
    **of_tables("proxy-nca", ProxyNCALoss, NCA),
    **of_tables("proxy-nca-paper", ProxyNCALoss, NCA, form="paper"),
    "proxy-nca-smoothed": assigned(ProxyNCALoss, NCA, label_smoothing=0.1),
    "proxy-nca-nearest": assigned(ProxyNCALoss, NCA, TABLES["several"], pooling="nearest", label_smoothing=0.1),
    "proxy-nca-paper-nearest": assigned(ProxyNCALoss, NCA, TABLES["several"], pooling="nearest", form="paper"),
    "normalized-softmax": assigned(NormalizedSoftmaxLoss, proxy_losses.normalized_softmax),
    "softmax": softmax(0.0),
    "softmax-smoothed": softmax(0.1),
    **of_tables("proxy-triplet", ProxyTripletLoss, proxy_losses.proxy_triplet, margin=0.5, negatives="active"),
    **of_tables("proxy-triplet-all", ProxyTripletLoss, proxy_losses.proxy_triplet, margin=0.5, negatives="all"),
    **of_tables("proxy-n-pairs", ProxyNPairsLoss, DOTS, scale=0.7, l2_reg_weight=0.1),
    **of_tables("proxy-anchor", ProxyAnchorLoss, proxy_losses.proxy_anchor, margin=0.1, alpha=16.0),
    "soft-triple-one-center": soft_triple(1, 0.0),
    "soft-triple": soft_triple(3, 0.0),
    "soft-triple-merging": soft_triple(3, 0.2),
    "dynamic-proxy-nca": Case(lambda: DynamicProxyNCALoss(7, SIZE), dynamic.by_labels),
    "triplet": triplet(),
    "triplet-plain": triplet(distance="plain"),
    "triplet-all": triplet(mining="all"),
    "triplet-hard": triplet(mining="hard", distance="plain"),
    "triplet-verticals": Case(
        lambda: TripletMarginLoss(0.5),
        lambda x, p, y: points.triplet_margin(x, y, 0.5, verticals=y % 2),
        lambda module, x, y: module(x, y, verticals=y % 2),
    ),
    "mined-semi-hard": images(
        lambda: MinedLoss(TripletMarginLoss(0.5), SemiHardMiner(0.5, negatives_per_pair=None)),
        lambda x, y: points.triplet_margin(x, y, 0.5),
    ),
    "mined-hard": images(
        lambda: MinedLoss(TripletMarginLoss(0.5), HardMiner()), lambda x, y: mining.hardest_loss(x, y, 0.5)
    ),
    "nca": images(NCALoss, lambda x, y: points.nca(x, y, 4.0, "softmax")),
    "nca-paper": images(lambda: NCALoss(form="paper"), lambda x, y: points.nca(x, y, 4.0, "paper")),
    "lifted-structure": images(LiftedStructureLoss, lambda x, y: points.lifted_structure(x, y, 1.0, 0.0, 16.0)),
    "lifted-structure-paper": images(
        lambda: LiftedStructureLoss(0.5, 0.25, scale=1.0), lambda x, y: points.lifted_structure(x, y, 0.5, 0.25, 1.0)
    ),
    "n-pairs": images(lambda: NPairsLoss(l2_reg_weight=0.1), lambda x, y: points.n_pairs(x, y, 0.1, "all", 8.0)),
    "n-pairs-one": images(
        lambda: NPairsLoss(pairs="one", scale=1.0), lambda x, y: points.n_pairs(x, y, 0.0, "one", 1.0)
    ),
    "structured-clustering": images(StructuredClusteringLoss, lambda x, y: points.structured_clustering(x, y, 1.0)),
    "structured-clustering-small-gamma": images(
        lambda: StructuredClusteringLoss(0.1), lambda x, y: points.structured_clustering(x, y, 0.1)
    ),
    "target-l2": Case(
        TargetL2Loss,
        lambda x, p, y: points.target_l2(x, unit_targets(y)),
        lambda module, x, y: module(x, unit_targets(y)),
    ),
}

EXTREMES: dict[str, Case] = {
    "proxy-nca": assigned(ProxyNCALoss, lambda x, p, own, **_: NCA(x, p, own, 1e4), softmax_scale=1e4),
    "proxy-nca-paper": assigned(
        ProxyNCALoss, lambda x, p, own, **_: NCA(x, p, own, 1e4, "paper"), softmax_scale=1e4, form="paper"
    ),
    "normalized-softmax": assigned(NormalizedSoftmaxLoss, proxy_losses.normalized_softmax, temperature=5e-5),
    "proxy-n-pairs": assigned(ProxyNPairsLoss, DOTS, scale=1e4, l2_reg_weight=0.0),
    "proxy-anchor": assigned(ProxyAnchorLoss, proxy_losses.proxy_anchor, margin=0.1, alpha=1e4),
    "soft-triple": soft_triple(3, 0.2, 1e4, 1e-4),
    "dynamic-proxy-nca": Case(
        lambda: DynamicProxyNCALoss(7, SIZE, 1e4), lambda x, p, y: dynamic.by_labels(x, p, y, 1e4)
    ),
    "nca": images(lambda: NCALoss(1e4), lambda x, y: points.nca(x, y, 1e4, "softmax")),
    "nca-paper": images(lambda: NCALoss(1e4, form="paper"), lambda x, y: points.nca(x, y, 1e4, "paper")),
    "n-pairs": images(lambda: NPairsLoss(scale=1e4), lambda x, y: points.n_pairs(x, y, 0.0, "all", 1e4)),
    "lifted-structure": images(
        lambda: LiftedStructureLoss(scale=1e4), lambda x, y: points.lifted_structure(x, y, 1.0, 0.0, 1e4)
    ),
}
