"""The kernel of the soft-max losses, beside what the property grid asks of the losses built on it."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.losses.watch import assert_same_gradients
from tests.oracles.proxy_losses import share
from univert.losses import proxy_softmax
from univert.losses.proxy_softmax import proxy_softmax_mean


def drawn(rows: int, proxies: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings, proxies and labels."""
    generator = torch.Generator().manual_seed(seed)
    x, p = torch.randn(rows, size, generator=generator), torch.randn(proxies, size, generator=generator) * 2
    return x, p, torch.randint(proxies, (rows,), generator=generator)


def oracle(x: Tensor, p: Tensor, bias: Tensor, own: Tensor, form: str, pooling: str, smoothing: float) -> Tensor:
    p = nn.functional.normalize(p.double(), dim=1)
    rows = [
        share(p @ row + bias.double(), mine, form, pooling, smoothing)
        for row, mine in zip(x.double(), own.tolist(), strict=True)
    ]
    return torch.stack(rows).mean() if rows else (x.sum() + p.sum() + bias.sum()).double() * 0


@given(
    rows=st.integers(0, 9),
    proxies=st.integers(3, 9),
    chunk_rows=st.sampled_from([1, 4, 9]),
    scale=st.floats(0.1, 100),
    form=st.sampled_from(["softmax", "paper"]),
    pooling=st.sampled_from(["soft", "nearest"]),
    smoothing=st.sampled_from([0.0, 0.1]),
    copied=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_sizes_and_options_equal_the_oracle(
    rows: int,
    proxies: int,
    chunk_rows: int,
    scale: float,
    form: str,
    pooling: Any,
    smoothing: float,
    copied: bool,
    seed: int,
) -> None:
    x, p, labels = drawn(rows, proxies, 3, seed)
    own_BM = torch.stack([labels, (labels + seed) % proxies], 1)  # sometimes one proxy, named twice
    bias = torch.linspace(-1, 1, proxies)

    def loss(x: Tensor, p: Tensor, bias: Tensor) -> Tensor:
        return proxy_softmax_mean(
            scale * x, p, own_BM, bias=bias, exclude_own=form == "paper", pooling=pooling, label_smoothing=smoothing
        )

    def wanted(x: Tensor, p: Tensor, bias: Tensor) -> Tensor:
        return oracle(scale * x, p, bias, own_BM, form, pooling, smoothing)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proxy_softmax, "_COPY_BYTES", 1 << 27 if copied else 0)
        patch.setattr(proxy_softmax, "rows_per_chunk", lambda *_, **__: chunk_rows)
        torch.testing.assert_close(loss(x, p, bias).double(), wanted(x, p, bias), rtol=1e-4, atol=1e-4)
        assert_same_gradients(loss, wanted, x, p, bias, tolerance=1e-3)


@pytest.mark.parametrize("frozen", ["x", "p", "both", "no_grad"])
def test_gradients_that_nobody_wants_are_not_made(frozen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, kernel = [], proxy_softmax._proxy_softmax

    def watched(*arguments: Any) -> Any:
        outcome = kernel(*arguments)
        wanted.append([part.numel() > 0 for part in outcome[1:]])
        return outcome

    monkeypatch.setattr(proxy_softmax, "_proxy_softmax", watched)
    x, proxies, labels = drawn(4, 6, 3)
    x.requires_grad_(frozen not in ("x", "both"))
    proxies.requires_grad_(frozen not in ("p", "both"))
    with torch.set_grad_enabled(frozen != "no_grad"):
        value = proxy_softmax_mean(x, proxies, labels[:, None])
    assert value.requires_grad == (frozen in ("x", "p"))
    assert wanted == [[frozen == "p", frozen == "x", False]]
    assert torch.equal(value.detach(), proxy_softmax_mean(x.detach(), proxies.detach(), labels[:, None]))


@pytest.mark.parametrize("want", list(itertools.product([True, False], repeat=2)))
def test_the_kernel_is_a_sound_operator(want: tuple[bool, bool]) -> None:
    x, proxies, labels = drawn(5, 6, 3)
    x.requires_grad_(want[0])
    proxies.requires_grad_(want[1])
    options = (True, False, False, 0.1, *want, False)
    operator = torch.ops.univert.proxy_softmax.default
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operator, (x, proxies, labels[:, None], None, *options), test_utils=checks)
