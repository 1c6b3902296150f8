from __future__ import annotations

import torch
from torch import nn

from tests.losses.cases import PRODUCTS, SIZE, proxies
from univert.losses import ProxyNCALoss, ProxyNPairsLoss


def n_pairs(scale: float) -> ProxyNPairsLoss:
    loss = ProxyNPairsLoss(PRODUCTS, SIZE, scale=scale)
    loss.bank.proxies.data = proxies()
    return loss


def test_it_is_cross_entropy_on_dot_products() -> None:
    x, y = torch.randn(9, SIZE, generator=torch.Generator().manual_seed(0)), torch.arange(9) % PRODUCTS
    torch.testing.assert_close(n_pairs(1.0)(x, y), nn.functional.cross_entropy(x @ proxies().T, y))


def test_with_unit_rows_it_is_proxy_nca_at_half_the_scale() -> None:
    x, y = torch.eye(SIZE), torch.arange(SIZE) % PRODUCTS
    one, other = n_pairs(18.0), ProxyNCALoss(PRODUCTS, SIZE, 9.0)
    one.bank.proxies.data = other.bank.proxies.data = nn.functional.normalize(proxies())
    torch.testing.assert_close(one(x, y), other(x, y))


def test_n_pairs_of_pytorch_metric_learning_with_proxies_as_positives() -> None:
    """One image a product, its proxy as the positive: their loss over the pairs is ours over the proxies."""
    from pytorch_metric_learning.distances import DotProductSimilarity
    from pytorch_metric_learning.losses import NPairsLoss

    x = torch.randn(PRODUCTS, SIZE, generator=torch.Generator().manual_seed(1))
    both, labels = torch.cat([x, proxies()]), torch.arange(PRODUCTS).repeat(2)
    pairs = (torch.arange(PRODUCTS), torch.arange(PRODUCTS) + PRODUCTS, *[torch.empty(0, dtype=torch.long)] * 2)
    theirs = NPairsLoss(distance=DotProductSimilarity(normalize_embeddings=False))
    torch.testing.assert_close(n_pairs(1.0)(x, labels[:PRODUCTS]), theirs(both, labels, indices_tuple=pairs))
