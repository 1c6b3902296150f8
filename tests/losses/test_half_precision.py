"""Under autocast, at a high scale, with every image on another product's proxy: the case that underflows elsewhere."""

from __future__ import annotations

import pytest
import torch
from pytorch_metric_learning import losses as peer
from torch.nn.functional import cross_entropy, normalize

from univert.losses import NormalizedSoftmaxLoss, ProxyNCALoss

SCALE, PRODUCTS, SIZE = 100.0, 50, 16


def adversarial() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Proxies, the next product's proxy as each embedding, and the labels."""
    generator = torch.Generator().manual_seed(0)
    proxies = normalize(torch.randn(PRODUCTS, SIZE, generator=generator), dim=1)
    return proxies, proxies.roll(-1, 0), torch.arange(PRODUCTS)


def exact(embeddings: torch.Tensor, proxies: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    logits = 2 * SCALE * normalize(embeddings.double(), dim=1) @ normalize(proxies.double(), dim=1).T
    return cross_entropy(logits, labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", ["proxy-nca", "normalized-softmax"])
def test_value_and_gradients_equal_float64(loss: str, dtype: torch.dtype) -> None:
    proxies, embeddings, labels = adversarial()
    module = (
        ProxyNCALoss(PRODUCTS, SIZE, SCALE, seed=0)
        if loss == "proxy-nca"
        else NormalizedSoftmaxLoss(PRODUCTS, SIZE, 1 / (2 * SCALE), seed=0)
    )
    module.bank.proxies.data.copy_(proxies)
    given = embeddings.to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype):
        value = module(given, labels)
    value.backward()
    wanted_proxies = proxies.clone().double().requires_grad_()
    wanted_rows = embeddings.to(dtype).double().requires_grad_()
    wanted = exact(wanted_rows, wanted_proxies, labels)
    wanted.backward()
    assert value.item() == pytest.approx(wanted.item(), rel=1e-2)
    for found, expected in ((given.grad, wanted_rows.grad), (module.bank.proxies.grad, wanted_proxies.grad)):
        assert found is not None
        assert expected is not None
        assert (found.double() - expected).norm() < 1e-2 * expected.norm()


def test_the_peer_fails_here() -> None:
    proxies, embeddings, labels = adversarial()
    theirs = peer.ProxyNCALoss(PRODUCTS, SIZE, softmax_scale=SCALE)
    theirs.proxies.data.copy_(proxies)
    with torch.autocast("cpu", torch.float16):
        value = theirs(embeddings.half(), labels)
    assert not value.isfinite() or value.item() < 0.9 * exact(embeddings, proxies, labels).item()
