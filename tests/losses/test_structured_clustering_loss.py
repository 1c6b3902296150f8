from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.losses.watch import assert_same_gradients
from tests.oracles import points as oracles
from univert.losses.structured_clustering_loss import StructuredClusteringLoss, structured_clustering_loss


def batch(rows: int = 12, products: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = nn.functional.normalize(torch.randn(rows, 5, generator=generator), dim=1)
    return x, torch.randint(products, (rows,), generator=generator)


def search(x: Tensor, y: Tensor, gamma: float) -> tuple[list[int], list[int], float]:
    found, own, mixing = torch.ops.univert.search_medoids(x, y, gamma)
    return found.tolist(), own.tolist(), mixing.item()


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 10), products=st.integers(1, 5), gamma=st.floats(0, 3))
def test_any_batch_equals_the_oracle(seed: int, rows: int, products: int, gamma: float) -> None:
    x, y = batch(rows, products, seed)
    medoids = oracles.searched_medoids(x.double(), y.tolist(), gamma)
    loss = StructuredClusteringLoss(gamma)
    wanted = oracles.structured_clustering(x, y, gamma, medoids)
    assert loss(x, y).item() == pytest.approx(wanted.item(), rel=1e-4, abs=1e-5)
    assert_same_gradients(lambda x: loss(x, y), lambda x: oracles.structured_clustering(x, y, gamma, medoids), x)


def test_a_hand_made_batch() -> None:
    # two products, each split over both corners: the medoids found are one a corner
    x, y = torch.tensor([[0.0, 0], [0, 0.1], [3, 0], [3, 0.1]]), torch.tensor([0, 1, 0, 1])
    found, own, mixing = search(x, y, 0.0)
    assert found in ([0, 0, 2, 2], [1, 1, 3, 3], [0, 0, 3, 3], [1, 1, 2, 2])
    assert [own[0], own[1]] == [own[2], own[3]]
    assert mixing == pytest.approx(1)
    # own medoids: 3 + 3; the corners': 0.1 + 0.1
    assert structured_clustering_loss(x, y, gamma=0.5).item() == pytest.approx((6 - 0.2) / 4 + 0.5)
