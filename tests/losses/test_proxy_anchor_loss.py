from __future__ import annotations

import torch
from torch import Tensor

from tests.losses.cases import PRODUCTS, SIZE
from tests.losses.watch import LargestTensor
from univert.losses.proxy_anchor_loss import ProxyAnchorLoss, proxy_anchor_loss


def batch(size: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(size, SIZE, generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(size) % (PRODUCTS - 1)  # one product has no image


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
