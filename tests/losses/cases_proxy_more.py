"""Proxy-Triplet, proxied N-pairs, Proxy-Anchor and SoftTriple, with one, several and shared proxies a product."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.losses.case import PRODUCTS, SIZE, Case, proxies
from tests.oracles import proxy_more as oracles
from univert.losses.proxy_anchor_loss import ProxyAnchorLoss, proxy_anchor_loss
from univert.losses.proxy_n_pairs_loss import ProxyNPairsLoss, proxy_n_pairs_loss
from univert.losses.proxy_triplet_loss import Negatives, ProxyTripletLoss, proxy_triplet_loss
from univert.losses.soft_triple_loss import SoftTripleLoss, soft_triple_loss

TABLES = {
    "": torch.arange(PRODUCTS)[:, None],
    "-several": torch.arange(2 * PRODUCTS).view(PRODUCTS, 2),
    "-shared": torch.tensor([[2], [0], [2], [1]]),
    "-repeated": torch.tensor([[0, 0], [1, 2], [2, 1], [3, 0]]),
}


def bank(table: Tensor) -> Tensor:
    return proxies(int(table.max()) + 1)


def own(table: Tensor, labels: Tensor) -> list[list[int]]:
    return [sorted(set(table[label].tolist())) for label in labels.tolist()]


def triplet(table: Tensor, negatives: Negatives, chunk_rows: int | None = None) -> Case:
    return Case(
        ProxyTripletLoss,
        lambda x, y: proxy_triplet_loss(
            x, bank(table), table[y], margin=0.5, negatives=negatives, chunk_rows=chunk_rows
        ),
        lambda x, y: oracles.proxy_triplet(x, bank(table), own(table, y), 0.5, negatives),
    )


def n_pairs(table: Tensor, chunk_rows: int | None = None) -> Case:
    return Case(
        ProxyNPairsLoss,
        lambda x, y: proxy_n_pairs_loss(x, bank(table), table[y], scale=1.5, l2_reg_weight=0.1, chunk_rows=chunk_rows),
        lambda x, y: oracles.proxy_n_pairs(x, bank(table), own(table, y), 1.5, 0.1),
    )


def anchor(table: Tensor, chunk_rows: int | None = None) -> Case:
    return Case(
        ProxyAnchorLoss,
        lambda x, y: proxy_anchor_loss(x, bank(table), table[y], chunk_rows=chunk_rows),
        lambda x, y: oracles.proxy_anchor(x, bank(table), own(table, y), 0.1, 32.0),
    )


def soft_triple(centers: int, tau: float, chunk_rows: int | None = None) -> Case:
    rows = proxies(PRODUCTS * centers).view(PRODUCTS, centers, SIZE)
    return Case(
        SoftTripleLoss,
        lambda x, y: soft_triple_loss(x, rows, y, tau=tau, chunk_rows=chunk_rows),
        lambda x, y: oracles.soft_triple(x, rows, y, 20.0, 0.1, 0.01, tau),
    )


CHOICES: tuple[Negatives, ...] = ("active", "all", "semi-hard", "hardest")
CASES: dict[str, Case] = {
    **{f"proxy-triplet-{choice}": triplet(TABLES[""], choice) for choice in CHOICES},
    "proxy-triplet-several": triplet(TABLES["-several"], "all"),
    "proxy-triplet-shared": triplet(TABLES["-shared"], "active"),
    "proxy-triplet-streamed": triplet(TABLES[""], "active", chunk_rows=5),
    **{f"proxy-n-pairs{name}": n_pairs(table) for name, table in TABLES.items()},
    "proxy-n-pairs-streamed": n_pairs(TABLES[""], chunk_rows=5),
    **{f"proxy-anchor{name}": anchor(table) for name, table in TABLES.items()},
    "proxy-anchor-streamed": anchor(TABLES["-several"], chunk_rows=3),
    "soft-triple-one-center": soft_triple(1, 0.0),
    "soft-triple": soft_triple(3, 0.0),
    "soft-triple-merging": soft_triple(3, 0.2),
    "soft-triple-streamed": soft_triple(3, 0.2, chunk_rows=5),
}
