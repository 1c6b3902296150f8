from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.losses.case import PRODUCTS, SIZE, proxies
from tests.losses.cases_proxy_more import TABLES, bank, own
from tests.losses.watch import LargestTensor, assert_same_gradients
from tests.oracles import proxy_more as oracles
from univert.core.errors import BadInputError
from univert.losses.proxy_anchor_loss import ProxyAnchorLoss, proxy_anchor_loss
from univert.proxies.assignment import StaticAssignment


def batch(size: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, SIZE, generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(size) % (PRODUCTS - 1)  # one product has no image


@pytest.mark.parametrize("table", TABLES.values(), ids=["one", "several", "shared", "repeated"])
@pytest.mark.parametrize("chunk_rows", [None, 1, 3])
def test_gradients_of_embeddings_and_proxies(table: Tensor, chunk_rows: int | None) -> None:
    x, y = batch()
    assert_same_gradients(
        lambda x, p: proxy_anchor_loss(x, p, table[y], chunk_rows=chunk_rows),
        lambda x, p: oracles.proxy_anchor(x, p, own(table, y), 0.1, 32.0),
        x,
        bank(table),
        tolerance=5e-4,
    )


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), alpha=st.floats(0.1, 1e4), margin=st.floats(0, 1), images=st.integers(1, 12))
def test_equals_pytorch_metric_learning(seed: int, alpha: float, margin: float, images: int) -> None:
    from pytorch_metric_learning.losses import ProxyAnchorLoss as Theirs

    x, y = batch(images, seed)
    theirs = Theirs(PRODUCTS, SIZE, margin, alpha)
    theirs.proxies.data = proxies()
    assert_same_gradients(
        lambda x: proxy_anchor_loss(x, proxies(), y, margin=margin, alpha=alpha),
        lambda x: theirs(x, y),
        x,
        tolerance=2e-3,  # float32 cosines times alpha
    )
    found = proxy_anchor_loss(x, proxies(), y, margin=margin, alpha=alpha)
    torch.testing.assert_close(found, theirs(x, y).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("alpha", [1e2, 1e3, 1e4])
@pytest.mark.parametrize("close", [False, True])
def test_exact_at_high_alpha(alpha: float, close: bool) -> None:
    """Adversarial labels: every image lies at another product's proxy."""
    x, y = batch()
    if close:
        x = proxies()[(y + 1) % PRODUCTS]
    wanted = oracles.proxy_anchor(x, proxies(), [[i] for i in y.tolist()], 0.1, alpha)
    found = proxy_anchor_loss(x.half(), proxies(), y, alpha=alpha)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-2)
    assert proxy_anchor_loss(x, proxies(), y, alpha=alpha).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_an_image_of_a_far_product_still_pushes_its_proxy() -> None:
    loss = ProxyAnchorLoss(PRODUCTS, SIZE, seed=0)
    x, y = batch()
    loss(x, y).backward()
    assert loss.bank.proxies.grad is not None
    assert (loss.bank.proxies.grad.norm(dim=1) > 0).all()  # the product without images, too


def test_images_times_proxies_is_never_held() -> None:
    images, count, size, chunk = 64, 3000, 4, 400
    x = torch.randn(images, size, requires_grad=True)
    p = torch.randn(count, size, requires_grad=True)
    with LargestTensor() as watch:
        proxy_anchor_loss(x, p, torch.arange(images), chunk_rows=chunk).backward()
    assert watch.entries <= (images + 1) * chunk


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    x, y = batch()
    with torch.autocast("cpu", dtype=dtype):
        lowered = proxy_anchor_loss(x, proxies(), y)
    torch.testing.assert_close(lowered, proxy_anchor_loss(x, proxies(), y))


@pytest.mark.slow
@pytest.mark.parametrize("chunk_rows", [None, 3])
def test_compiled_equals_eager(chunk_rows: int | None) -> None:
    x, y = batch()

    def loss(x: Tensor, p: Tensor) -> Tensor:
        return proxy_anchor_loss(x, p, y, chunk_rows=chunk_rows)

    assert_same_gradients(torch.compile(loss, backend="aot_eager"), loss, x, proxies())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProxyAnchorLoss(4, 4, alpha=0), "alpha"),
        (lambda: ProxyAnchorLoss(4, 4, alpha=float("inf")), "alpha"),
        (lambda: ProxyAnchorLoss(4, 4, margin=-0.1), "margin"),
        (lambda: ProxyAnchorLoss(1, 4), "owns all 1"),
        (lambda: ProxyAnchorLoss(4, 4, assignment=StaticAssignment.several(3, 2)), "num_classes = 4"),
        (lambda: ProxyAnchorLoss(4, 4)(torch.ones(1, 4), torch.tensor([4])), "labels"),
        (lambda: proxy_anchor_loss(torch.ones(1, 4), torch.ones(1, 4), torch.tensor([0])), "at least 2 proxies"),
    ],
)
def test_errors(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        make()
