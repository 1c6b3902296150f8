"""No loss holds images x proxies, or images x images beside small masks; what a chunk holds is watched."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.losses.watch import LargestTensor
from univert.losses import proxy_softmax, streaming, triplet_margin_loss
from univert.losses.lifted_structure_loss import lifted_structure_loss
from univert.losses.nca_loss import nca_loss
from univert.losses.proxy_anchor_loss import proxy_anchor_loss
from univert.losses.proxy_triplet_loss import proxy_triplet_loss
from univert.losses.soft_triple_loss import soft_triple_loss

IMAGES, PROXIES, CHUNK = 64, 3000, 8
OWN = torch.arange(IMAGES)[:, None]
PRODUCTS = torch.arange(IMAGES) // 4


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (streaming, proxy_softmax):
        monkeypatch.setattr(module, "rows_per_chunk", lambda *_, **__: CHUNK)
    monkeypatch.setattr(triplet_margin_loss, "CHUNK_ENTRIES", CHUNK * IMAGES)


@pytest.mark.parametrize(
    ("loss", "most"),
    [
        (lambda x, p: proxy_triplet_loss(x, p, OWN, negatives="active"), (CHUNK + 1) * PROXIES),
        (lambda x, p: proxy_triplet_loss(x, p, OWN, negatives="all"), (CHUNK + 1) * PROXIES),
        (lambda x, p: proxy_anchor_loss(x, p, OWN), 4 * PROXIES),  # which streams the proxies: their own size
        (lambda x, p: soft_triple_loss(x, p.view(-1, 5, 4), OWN[:, 0], tau=0.2), (CHUNK + 1) * PROXIES),
        (lambda x, _: nca_loss(x, PRODUCTS), IMAGES * IMAGES),  # the comparison of labels, of one byte each
        (lambda x, _: lifted_structure_loss(x, PRODUCTS), IMAGES * IMAGES),
    ],
)
def test_only_a_chunk_is_held(loss: Callable[[Tensor, Tensor], Tensor], most: int) -> None:
    x, p = torch.randn(IMAGES, 4, requires_grad=True), torch.randn(PROXIES, 4, requires_grad=True)
    with LargestTensor() as watch:
        loss(x, p).backward()
    assert watch.entries <= most


def test_the_kernels_hold_only_a_chunk() -> None:
    x, p = torch.randn(IMAGES, 4), torch.randn(PROXIES, 4)
    with LargestTensor() as watch:
        proxy_softmax.value_and_gradients(x, p, OWN, None, True, False, False, 0.0, True, True, False)
    assert watch.entries == CHUNK * PROXIES
    with LargestTensor() as watch:
        triplet_margin_loss._mined(x, PRODUCTS, None, 0.2, "semi-hard", False, True)
    assert watch.entries <= 2 * CHUNK * IMAGES
