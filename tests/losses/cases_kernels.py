"""The soft-max losses over proxies: Proxy-NCA in its forms, soft-max and normalised soft-max."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.losses.case import PRODUCTS, SIZE, Case, proxies
from tests.oracles import kernels as oracles
from univert.losses.normalized_softmax_loss import NormalizedSoftmaxLoss, normalized_softmax_loss
from univert.losses.proxy_nca_loss import ProxyNCALoss, proxy_nca_loss
from univert.losses.softmax_loss import SoftmaxLoss, softmax_loss

ONE = torch.arange(PRODUCTS)[:, None]
SEVERAL = torch.tensor([[0, 4], [1, 5], [6, 2], [3, 3]])  # the last product has one, named twice


def own(table: Tensor, labels: Tensor) -> list[list[int]]:
    return [table[label].tolist() for label in labels.tolist()]


def proxy_nca(table: Tensor = ONE, *, chunk_rows: int | None = None, **options: Any) -> Case:
    rows = proxies(int(table.max()) + 1)
    renamed = {"label_smoothing": "smoothing"}
    expected = {renamed.get(name, name): value for name, value in options.items()}
    return Case(
        ProxyNCALoss,
        lambda x, y: proxy_nca_loss(x, rows, table[y], chunk_rows=chunk_rows, **options),
        lambda x, y: oracles.proxy_nca(x, rows, own(table, y), **expected),
    )


def softmax(label_smoothing: float = 0.0) -> Case:
    bias = proxies()[:, 0].clone()
    return Case(
        SoftmaxLoss,
        lambda x, y: softmax_loss(x, proxies(), y, bias=bias, label_smoothing=label_smoothing),
        lambda x, y: oracles.softmax(x, proxies(), bias, own(ONE, y), label_smoothing),
    )


CASES: dict[str, Case] = {
    "proxy-nca-softmax": proxy_nca(),
    "proxy-nca-softmax-streamed": proxy_nca(chunk_rows=5),
    "proxy-nca-softmax-smoothed": proxy_nca(label_smoothing=0.1),
    "proxy-nca-softmax-several": proxy_nca(SEVERAL),
    "proxy-nca-softmax-nearest": proxy_nca(SEVERAL, pooling="nearest"),
    "proxy-nca-softmax-free": proxy_nca(scale=0.25, unit_norm=False),
    "proxy-nca-paper": proxy_nca(form="paper"),
    "proxy-nca-paper-streamed": proxy_nca(form="paper", chunk_rows=5),
    "proxy-nca-paper-several": proxy_nca(SEVERAL, form="paper"),
    "normalized-softmax": Case(
        NormalizedSoftmaxLoss,
        lambda x, y: normalized_softmax_loss(x, proxies(SIZE), y),
        lambda x, y: oracles.normalized_softmax(x, proxies(SIZE), own(ONE, y)),
    ),
    "softmax": softmax(),
    "softmax-smoothed": softmax(0.1),
}
