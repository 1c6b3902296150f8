"""Losses that are each other, or a library's, in a special case: what the property grid does not ask."""

import pytest
import torch
from torch import nn

from tests.losses.cases import PRODUCTS, SIZE, proxies
from tests.losses.watch import gradients
from univert.losses import ProxyAnchorLoss, ProxyNCALoss, ProxyNPairsLoss
from univert.losses.lifted_structure_loss import lifted_structure_loss
from univert.losses.n_pairs_loss import n_pairs_loss
from univert.losses.nca_loss import nca_loss
from univert.losses.soft_triple_loss import mean_distance_of_centers
from univert.losses.structured_clustering_loss import structured_clustering_loss

ROWS = torch.randn(12, SIZE, generator=torch.Generator().manual_seed(0))


def test_proxy_n_pairs_with_unit_rows_is_proxy_nca_at_half_the_scale() -> None:
    x, y = torch.eye(SIZE), torch.arange(SIZE) % PRODUCTS
    one, other = ProxyNPairsLoss(PRODUCTS, SIZE, scale=18.0), ProxyNCALoss(PRODUCTS, SIZE, 9.0)
    one.bank.proxies.data = other.bank.proxies.data = nn.functional.normalize(proxies())
    torch.testing.assert_close(one(x, y), other(x, y))


def test_n_pairs_with_one_pair_a_product_is_cross_entropy_over_pairs() -> None:
    wanted = nn.functional.cross_entropy(ROWS[:6] @ ROWS[6:].T, torch.arange(6))
    torch.testing.assert_close(n_pairs_loss(ROWS, torch.arange(6).repeat(2), pairs="one", scale=1.0), wanted)
    y = torch.tensor([0, 1, 0, 1, 0, 1, 2, 0, 1, 2, 3, 3])
    (gradient,) = gradients(lambda x: n_pairs_loss(x, y, pairs="one"), ROWS)
    assert {int(i) for i in gradient.any(1).nonzero()} == {0, 2, 1, 3, 6, 9, 10, 11}  # two of each product


def test_lifted_structure_with_a_large_scale_looks_at_the_nearest_negative_alone() -> None:
    x, y = nn.functional.normalize(ROWS), torch.arange(12) % 5
    d = (x[:, None] - x).square().sum(2).sqrt()
    same = y[:, None] == y
    nearest = d.masked_fill(same, torch.inf).amin(1)
    pairs = same.fill_diagonal_(False)
    costs = (1 - torch.minimum(nearest[:, None], nearest) + d).clamp_min(0).square()
    torch.testing.assert_close(lifted_structure_loss(x, y, scale=1e4), costs[pairs].mean() / 2, rtol=1e-3, atol=1e-4)


def test_an_nca_loss_below_float32s_rounding_of_its_parts_is_kept() -> None:
    x, y = torch.tensor([[1.0, 0], [1, 0], [-1, 0], [-1, 0]]), torch.tensor([0, 0, 1, 1])
    assert nca_loss(x, y, softmax_scale=10.0).item() == pytest.approx(2 * torch.tensor(-40.0).exp().item())


def test_proxy_anchor_pushes_the_proxies_of_products_without_images() -> None:
    loss = ProxyAnchorLoss(PRODUCTS, SIZE, seed=0)
    loss(ROWS, torch.arange(12) % (PRODUCTS - 1)).backward()
    assert (loss.bank.proxies.grad.norm(dim=1) > 0).all()


def test_merged_centers_have_no_distance_and_no_gradient() -> None:
    unit = nn.functional.normalize(proxies()[:, None].expand(-1, 3, -1), dim=2)
    assert mean_distance_of_centers(unit).item() == 0
    (gradient,) = gradients(mean_distance_of_centers, unit)
    assert (gradient == 0).all()


def test_medoids_of_a_hand_made_batch() -> None:
    # two products, each split over both corners: the medoids found are one a corner
    x, y = torch.tensor([[0.0, 0], [0, 0.1], [3, 0], [3, 0.1]]), torch.tensor([0, 1, 0, 1])
    found, own, mixing = torch.ops.univert.search_medoids(x, y, 0.0)
    assert found.tolist() in ([0, 0, 2, 2], [1, 1, 3, 3], [0, 0, 3, 3], [1, 1, 2, 2])
    assert own[:2].equal(own[2:])
    assert mixing.item() == pytest.approx(1)
    # own medoids: 3 + 3; the corners': 0.1 + 0.1
    assert structured_clustering_loss(x, y, gamma=0.5).item() == pytest.approx((6 - 0.2) / 4 + 0.5)
