from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.losses.cases import PRODUCTS, SIZE, proxies
from tests.losses.watch import LargestTensor, assert_same_gradients
from tests.oracles import proxy_losses as oracles
from univert.losses.proxy_anchor_loss import ProxyAnchorLoss, proxy_anchor_loss


def batch(size: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, SIZE, generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(size) % (PRODUCTS - 1)  # one product has no image


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), alpha=st.floats(0.1, 1e4), margin=st.floats(0, 1), images=st.integers(1, 12))
def test_equals_pytorch_metric_learning(seed: int, alpha: float, margin: float, images: int) -> None:
    from pytorch_metric_learning.losses import ProxyAnchorLoss as Theirs

    x, y = batch(images, seed)
    theirs = Theirs(PRODUCTS, SIZE, margin, alpha)
    theirs.proxies.data = proxies()

    def ours(x: Tensor) -> Tensor:
        return proxy_anchor_loss(x, proxies(), y[:, None], margin=margin, alpha=alpha)

    assert_same_gradients(ours, lambda x: theirs(x, y), x, tolerance=2e-3)  # float32 cosines times alpha
    torch.testing.assert_close(ours(x), theirs(x, y).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("alpha", [1e2, 1e4])
def test_exact_at_high_alpha_with_each_image_at_another_products_proxy(alpha: float) -> None:
    _, y = batch()
    x = proxies()[(y + 1) % PRODUCTS]
    wanted = oracles.proxy_anchor(x, proxies(), y[:, None].tolist(), 0.1, alpha)
    assert proxy_anchor_loss(x, proxies(), y[:, None], alpha=alpha).item() == pytest.approx(wanted.item(), rel=1e-5)
    found = proxy_anchor_loss(x.half(), proxies(), y[:, None], alpha=alpha)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-2)


def test_an_image_of_a_far_product_still_pushes_its_proxy() -> None:
    loss = ProxyAnchorLoss(PRODUCTS, SIZE, seed=0)
    loss(*batch()).backward()
    assert loss.bank.proxies.grad is not None
    assert (loss.bank.proxies.grad.norm(dim=1) > 0).all()  # the product without images, too


def test_images_times_proxies_is_never_held() -> None:
    images, count, size, chunk = 64, 3000, 4, 400
    x = torch.randn(images, size, requires_grad=True)
    p = torch.randn(count, size, requires_grad=True)
    with LargestTensor() as watch:
        proxy_anchor_loss(x, p, torch.arange(images)[:, None], chunk_rows=chunk).backward()
    assert watch.entries <= (images + 1) * chunk
