from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.losses.case import PRODUCTS, SIZE, proxies
from tests.losses.cases_proxy_more import TABLES, bank, own
from tests.losses.watch import LargestTensor, assert_same_gradients
from tests.oracles import losses as main_oracles
from tests.oracles import proxy_more as oracles
from univert.core.errors import BadInputError
from univert.losses.proxy_n_pairs_loss import ProxyNPairsLoss, proxy_n_pairs_loss
from univert.proxies.assignment import StaticAssignment


def batch(size: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, SIZE, generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(size) % PRODUCTS


@pytest.mark.parametrize("table", TABLES.values(), ids=["one", "several", "shared", "repeated"])
@pytest.mark.parametrize("chunk_rows", [None, 1, 4])
def test_gradients_of_embeddings_and_proxies(table: Tensor, chunk_rows: int | None) -> None:
    x, y = batch()
    assert_same_gradients(
        lambda x, p: proxy_n_pairs_loss(x, p, table[y], scale=0.7, l2_reg_weight=0.01, chunk_rows=chunk_rows),
        lambda x, p: oracles.proxy_n_pairs(x, p, own(table, y), 0.7, 0.01),
        x,
        bank(table),
    )


def test_it_is_cross_entropy_on_dot_products() -> None:
    x, y = batch()
    torch.testing.assert_close(
        proxy_n_pairs_loss(x, proxies(), y, scale=1.0), nn.functional.cross_entropy(x @ proxies().T, y)
    )


def test_with_unit_rows_it_is_proxy_nca_at_half_the_scale() -> None:
    x, y = batch()
    x, p = nn.functional.normalize(x), nn.functional.normalize(proxies())
    wanted = main_oracles.proxy_nca(x, p, y, 9.0, "softmax")
    assert proxy_n_pairs_loss(x, p, y, scale=18.0).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_n_pairs_of_pytorch_metric_learning_with_proxies_as_positives() -> None:
    """One image a product, its proxy as the positive: their loss over the pairs is ours over the proxies."""
    from pytorch_metric_learning.distances import DotProductSimilarity
    from pytorch_metric_learning.losses import NPairsLoss

    x = torch.randn(PRODUCTS, SIZE, generator=torch.Generator().manual_seed(1))
    both, labels = torch.cat([x, proxies()]), torch.arange(PRODUCTS).repeat(2)
    pairs = (torch.arange(PRODUCTS), torch.arange(PRODUCTS) + PRODUCTS, *[torch.empty(0, dtype=torch.long)] * 2)
    theirs = NPairsLoss(distance=DotProductSimilarity(normalize_embeddings=False))
    wanted = theirs(both, labels, indices_tuple=pairs)
    torch.testing.assert_close(proxy_n_pairs_loss(x, proxies(), labels[:PRODUCTS], scale=1.0), wanted)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e4))
def test_finite_and_never_negative_at_any_scale(seed: int, scale: float) -> None:
    x, y = batch(seed=seed)
    loss = ProxyNPairsLoss(PRODUCTS, SIZE, scale=scale, seed=seed)
    value = loss(x, y)
    value.backward()
    assert 0 <= value.item() < math.inf
    assert loss.bank.proxies.grad is not None
    assert loss.bank.proxies.grad.isfinite().all()
    wanted = oracles.proxy_n_pairs(x, loss.bank.proxies, [[i] for i in y.tolist()], scale, 0.0)
    assert value.item() == pytest.approx(wanted.item(), rel=1e-4, abs=1e-4)


def test_images_times_proxies_is_never_held() -> None:
    images, count, size, chunk = 64, 3000, 4, 8
    x = torch.randn(images, size, requires_grad=True)
    p = torch.randn(count, size, requires_grad=True)
    with LargestTensor() as watch:
        proxy_n_pairs_loss(x, p, torch.arange(images), chunk_rows=chunk).backward()
    assert watch.entries <= (chunk + 1) * count


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    x, y = batch()
    with torch.autocast("cpu", dtype=dtype):
        lowered = proxy_n_pairs_loss(x, proxies(), y, l2_reg_weight=0.1)
    torch.testing.assert_close(lowered, proxy_n_pairs_loss(x, proxies(), y, l2_reg_weight=0.1))


@pytest.mark.slow
def test_compiled_equals_eager() -> None:
    x, y = batch()

    def loss(x: Tensor, p: Tensor) -> Tensor:
        return proxy_n_pairs_loss(x, p, y, l2_reg_weight=0.1)

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    assert_same_gradients(compiled, loss, x, proxies())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProxyNPairsLoss(4, 4, scale=0), "scale"),
        (lambda: ProxyNPairsLoss(4, 4, scale=float("nan")), "scale"),
        (lambda: ProxyNPairsLoss(4, 4, l2_reg_weight=-1), "l2_reg_weight"),
        (lambda: ProxyNPairsLoss(1, 4), "owns all 1"),
        (lambda: ProxyNPairsLoss(4, 4, assignment=StaticAssignment.one_per_product(5)), "num_classes = 4"),
        (lambda: ProxyNPairsLoss(4, 4)(torch.ones(1, 4), torch.tensor([-1])), "labels"),
    ],
)
def test_errors(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        make()
