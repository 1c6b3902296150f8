from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.losses.cases import PRODUCTS, SIZE, proxies
from tests.losses.watch import LargestTensor
from univert.losses.proxy_triplet_loss import Negatives, ProxyTripletLoss, proxy_triplet_loss
from univert.proxies import StaticAssignment

choices = pytest.mark.parametrize("negatives", get_args(Negatives))


def batch(size: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, SIZE, generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(size) % PRODUCTS


def test_the_choices_of_negatives_on_a_line_of_distances() -> None:
    x = torch.tensor([[1.0, 0.0]])
    angles = torch.tensor([0.6, 0.3, 0.65, 2.0])  # own proxy first; two inside the margin, one far
    rows = torch.stack([angles.cos(), angles.sin()], 1)
    distances = 2 - 2 * angles.cos()
    hinges = distances[0] + 0.2 - distances[1:]
    assert (hinges > 0).tolist() == [True, True, False]
    for negatives, wanted in (("active", hinges[:2].mean()), ("all", hinges[:2].sum() / 3)):
        found = proxy_triplet_loss(x, rows, torch.tensor([[0]]), margin=0.2, negatives=negatives)
        torch.testing.assert_close(found, wanted)


@choices
def test_images_times_proxies_is_never_held(negatives: Negatives) -> None:
    images, count, size, chunk = 64, 3000, 4, 8
    x = torch.randn(images, size, requires_grad=True)
    p = torch.randn(count, size, requires_grad=True)
    with LargestTensor() as watch:
        proxy_triplet_loss(x, p, torch.arange(images)[:, None], negatives=negatives, chunk_rows=chunk).backward()
    assert watch.entries <= (chunk + 1) * count


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), length=st.floats(0.01, 100), margin=st.floats(0.01, 3.9))
def test_properties(seed: int, length: float, margin: float) -> None:
    x, y = batch(seed=seed)
    p = torch.randn(PRODUCTS, SIZE, generator=torch.Generator().manual_seed(seed + 1))

    def loss(negatives: Negatives, x: Tensor = x, margin: float = margin) -> float:
        return proxy_triplet_loss(x, p, y[:, None], margin=margin, negatives=negatives).item()

    every, active = loss("all"), loss("active")
    assert -1e-6 <= every <= active + 1e-5
    assert active <= 4 + margin
    assert loss("all", x * length) == pytest.approx(every, rel=1e-4, abs=1e-5)
    assert loss("all", margin=margin + 0.1) >= every - 1e-5


def test_pml_triplets_on_the_same_proxies() -> None:
    """With proxies as reference set, pytorch-metric-learning's triplet loss forms exactly the proxy triplets."""
    from pytorch_metric_learning import distances, losses, reducers

    x, y = batch()
    theirs = losses.TripletMarginLoss(
        margin=0.3, distance=distances.LpDistance(power=2), reducer=reducers.MeanReducer()
    )
    wanted = theirs(x, y, ref_emb=proxies(), ref_labels=torch.arange(PRODUCTS))
    torch.testing.assert_close(proxy_triplet_loss(x, proxies(), y[:, None], margin=0.3, negatives="all"), wanted)


def test_a_module_with_fewer_proxies_than_products_trains_and_is_saved() -> None:
    loss = ProxyTripletLoss(8, SIZE, 0.5, assignment=StaticAssignment.fractional(8, 4), seed=0)
    x = nn.Parameter(torch.randn(16, SIZE, generator=torch.Generator().manual_seed(0)))
    labels = torch.arange(16) % 8
    optimiser = torch.optim.SGD([x, *loss.parameters()], lr=1.0)
    first = loss(x, labels).item()
    for _ in range(50):
        optimiser.zero_grad()
        loss(x, labels).backward()
        optimiser.step()
    assert loss(x, labels).item() < first / 4
    again = ProxyTripletLoss(8, SIZE, 0.5, assignment=StaticAssignment.fractional(8, 4, seed=1))
    again.load_state_dict(loss.state_dict())
    assert again(x, labels).item() == loss(x, labels).item()
