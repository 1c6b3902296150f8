from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.losses.case import PRODUCTS, SIZE, proxies
from tests.losses.cases_proxy_more import TABLES, bank, own
from tests.losses.watch import LargestTensor, assert_same_gradients, gradients
from tests.oracles import proxy_more as oracles
from univert.core.errors import BadInputError
from univert.losses.proxy_triplet_loss import Negatives, ProxyTripletLoss, proxy_triplet_loss
from univert.proxies.assignment import StaticAssignment

choices = pytest.mark.parametrize("negatives", get_args(Negatives))


def batch(size: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, SIZE, generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(size) % PRODUCTS


@choices
@pytest.mark.parametrize("table", TABLES.values(), ids=["one", "several", "shared", "repeated"])
@pytest.mark.parametrize("chunk_rows", [None, 1, 4])
def test_gradients_of_embeddings_and_proxies(negatives: Negatives, table: Tensor, chunk_rows: int | None) -> None:
    x, y = batch()
    assert_same_gradients(
        lambda x, p: proxy_triplet_loss(x, p, table[y], margin=0.5, negatives=negatives, chunk_rows=chunk_rows),
        lambda x, p: oracles.proxy_triplet(x, p, own(table, y), 0.5, negatives),
        x,
        bank(table),
    )


def test_the_choices_of_negatives_on_a_line_of_distances() -> None:
    x = torch.tensor([[1.0, 0.0]])
    angles = torch.tensor([0.6, 0.3, 0.65, 2.0])  # own proxy first; one nearer, one semi-hard, one far
    rows = torch.stack([angles.cos(), angles.sin()], 1)
    distances = 2 - 2 * angles.cos()
    hinges = distances[0] + 0.2 - distances[1:]
    assert (hinges > 0).tolist() == [True, True, False]
    wanted = {"active": hinges[:2].mean(), "all": hinges[:2].sum() / 3, "semi-hard": hinges[1], "hardest": hinges[0]}
    for negatives in get_args(Negatives):
        found = proxy_triplet_loss(x, rows, torch.tensor([0]), margin=0.2, negatives=negatives)
        torch.testing.assert_close(found, wanted[negatives])


def test_semi_hard_where_there_is_none_is_zero_with_zero_gradients() -> None:
    x = torch.eye(2)[:1]
    rows = torch.tensor([[0.0, 1.0], [1.0, 0.1]])  # the negative is nearer than the own proxy

    def loss(x: Tensor, p: Tensor) -> Tensor:
        return proxy_triplet_loss(x, p, torch.tensor([0]), negatives="semi-hard")

    assert loss(x, rows).item() == 0
    assert all((grad == 0).all() for grad in gradients(loss, x, rows))


@choices
def test_images_times_proxies_is_never_held(negatives: Negatives) -> None:
    images, count, size, chunk = 64, 3000, 4, 8
    x = torch.randn(images, size, requires_grad=True)
    p = torch.randn(count, size, requires_grad=True)
    with LargestTensor() as watch:
        proxy_triplet_loss(x, p, torch.arange(images), negatives=negatives, chunk_rows=chunk).backward()
    assert watch.entries <= (chunk + 1) * count


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), length=st.floats(0.01, 100), margin=st.floats(0.01, 3.9))
def test_properties(seed: int, length: float, margin: float) -> None:
    x, y = batch(seed=seed)
    p = torch.randn(PRODUCTS, SIZE, generator=torch.Generator().manual_seed(seed + 1))

    def loss(negatives: Negatives, x: Tensor = x, margin: float = margin) -> float:
        return proxy_triplet_loss(x, p, y, margin=margin, negatives=negatives).item()

    every, active, hardest = loss("all"), loss("active"), loss("hardest")
    assert -1e-6 <= every <= active + 1e-5
    assert active <= hardest + 1e-5
    assert loss("semi-hard") <= margin + 1e-5
    assert hardest <= 4 + margin
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
    found = proxy_triplet_loss(x, proxies(), y, margin=0.3, negatives="all")
    torch.testing.assert_close(found, wanted)


@choices
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(negatives: Negatives, dtype: torch.dtype) -> None:
    x, y = batch()
    plain = proxy_triplet_loss(x, proxies(), y, negatives=negatives)
    with torch.autocast("cpu", dtype=dtype):
        lowered = proxy_triplet_loss(x, proxies(), y, negatives=negatives)
    torch.testing.assert_close(lowered, plain)


@pytest.mark.slow
@pytest.mark.parametrize("chunk_rows", [None, 4])
def test_compiled_equals_eager(chunk_rows: int | None) -> None:
    x, y = batch()

    def loss(x: Tensor, p: Tensor) -> Tensor:
        return proxy_triplet_loss(x, p, y, margin=0.5, chunk_rows=chunk_rows)

    assert_same_gradients(torch.compile(loss, backend="aot_eager"), loss, x, proxies())


def test_a_module_with_fewer_proxies_than_products_trains() -> None:
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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProxyTripletLoss(1, 4), "owns all 1"),
        (lambda: ProxyTripletLoss(4, 4, 0.0), "margin"),
        (lambda: ProxyTripletLoss(4, 4, float("inf")), "margin"),
        (lambda: ProxyTripletLoss(4, 4, negatives="easy"), "negatives must be one of active"),  # type: ignore[arg-type]
        (lambda: ProxyTripletLoss(4, 4, assignment=StaticAssignment.one_per_product(3)), "num_classes = 4"),
        (lambda: ProxyTripletLoss(2, 4, assignment=StaticAssignment.fractional(2, 1)), "owns all 1"),
        (lambda: ProxyTripletLoss(4, 4)(torch.ones(2, 3), torch.tensor([0, 1])), "same size"),
        (lambda: ProxyTripletLoss(4, 4)(torch.ones(2, 4), torch.tensor([0, 4])), "labels"),
        (lambda: ProxyTripletLoss(4, 4)(torch.ones(2, 4), torch.tensor([0])), "each of the 2 images"),
        (lambda: proxy_triplet_loss(torch.ones(2, 4), torch.ones(3, 4), torch.tensor([0, 3])), "assigned"),
        (lambda: proxy_triplet_loss(torch.ones(2, 4), torch.ones(3, 4), torch.ones(2)), "assigned"),
        (lambda: proxy_triplet_loss(torch.ones(1, 4), torch.ones(1, 4), torch.tensor([0])), "at least 2 proxies"),
    ],
)
def test_errors(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        make()
