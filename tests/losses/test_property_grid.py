"""Every loss of the package meets the same demands; a loss that is not listed in `cases.py` fails the first test."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import univert.losses
from tests.losses.cases import CASES, EXTREMES, PRODUCTS, SIZE, Case, proxies
from univert.core.errors import BadInputError
from univert.losses import proxy_softmax, streaming, triplet_margin_loss


def every_case(*, but: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "case", [pytest.param(case, id=name) for name, case in CASES.items() if name not in but]
    )


grid = every_case()
halves = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


def batch(size: int = 12, seed: int | None = None) -> tuple[Tensor, Tensor]:
    """Unit rows; products in turn, or with a seed at random, so that some have one image and others none."""
    generator = torch.Generator().manual_seed(seed or 0)
    embeddings = nn.functional.normalize(torch.randn(size, SIZE, generator=generator), dim=1)
    labels = torch.arange(size) % PRODUCTS
    return embeddings, labels if seed is None else torch.randint(PRODUCTS, (size,), generator=generator)


def value_and_gradients(
    case: Case, embeddings: Tensor, labels: Tensor, autocast: torch.dtype | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """By embeddings and proxies."""
    module, x = case.module(), embeddings.clone().requires_grad_()
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        value = case.call(module, x, labels)
    value.backward()
    assert x.grad is not None
    return value.detach(), x.grad, module.bank.proxies.grad if hasattr(module, "bank") else None


def oracle_value_and_gradients(case: Case, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    module, x = case.module(), embeddings.clone().requires_grad_()
    rows = module.bank.proxies.detach() if hasattr(module, "bank") else torch.empty(0)
    value = case.oracle(x, rows.requires_grad_(), labels)
    value.backward()
    assert x.grad is not None
    return value.detach(), x.grad, rows.grad


def assert_equal(found: Any, wanted: Any, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    for one, other in zip(found, wanted, strict=True):
        if one is not None and other is not None:
            torch.testing.assert_close(one.double(), other.double(), rtol=rtol, atol=atol)


def test_every_loss_is_in_the_grid() -> None:
    exported = {name for name in univert.losses.__all__ if name.endswith("Loss")}
    assert exported == {type(case.make()).__name__ for case in CASES.values()}


@grid
@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("chunk_rows", [None, 3])
def test_value_and_gradients_equal_the_oracle(
    case: Case, seed: int | None, chunk_rows: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if chunk_rows:
        for module in (streaming, proxy_softmax):
            monkeypatch.setattr(module, "rows_per_chunk", lambda *_, **__: chunk_rows)
        monkeypatch.setattr(triplet_margin_loss, "CHUNK_ENTRIES", chunk_rows * 12)
    embeddings, labels = batch(seed=seed)
    assert_equal(value_and_gradients(case, embeddings, labels), oracle_value_and_gradients(case, embeddings, labels))


@pytest.mark.parametrize("case", EXTREMES.values(), ids=EXTREMES.keys())
@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("wrong", [False, True])
def test_exact_and_finite_at_an_extreme_scale(case: Case, dtype: torch.dtype | None, wrong: bool) -> None:
    """At random, and with every image where another product's proxy is: the case that underflows elsewhere."""
    embeddings, labels = batch(seed=1)
    embeddings = proxies()[(labels + 1) % PRODUCTS] + 0.01 * embeddings if wrong else embeddings
    value, *gradients = value_and_gradients(case, embeddings.to(dtype or torch.float32), labels, dtype)
    wanted = oracle_value_and_gradients(case, embeddings.to(dtype or torch.float32), labels)[0]
    assert value.item() == pytest.approx(wanted.item(), rel=1e-4 if dtype is None else 1e-2)
    assert dtype is not None or all(gradient is None or gradient.isfinite().all() for gradient in gradients)


@every_case(but=("n-pairs-one",))  # which takes the first two images of a product
def test_order_of_the_batch_does_not_matter(case: Case) -> None:
    embeddings, labels = batch()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(case.loss(embeddings[order], labels[order]), case.loss(embeddings, labels))


@grid
@halves
def test_half_precision_and_autocast_are_computed_in_float32(case: Case, dtype: torch.dtype) -> None:
    embeddings, labels = batch()
    half = embeddings.to(dtype)
    value, gradient, _ = value_and_gradients(case, half, labels)
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert_equal((value,), (case.loss(half.float(), labels),), rtol=1e-6)
    assert_equal((gradient,), (value_and_gradients(case, half.float(), labels)[1],), rtol=1e-2, atol=1e-3)
    lowered = value_and_gradients(case, embeddings, labels, dtype)
    assert_equal(lowered, value_and_gradients(case, embeddings, labels), rtol=1e-6, atol=1e-7)


DEGENERATE = {
    "collapsed": (torch.ones(6, SIZE), torch.arange(6) % PRODUCTS),
    "zero": (torch.zeros(6, SIZE), torch.arange(6) % PRODUCTS),
    "zero in half precision": (torch.zeros(6, SIZE).half(), torch.arange(6) % PRODUCTS),
    "duplicates": (torch.eye(SIZE)[[0, 1, 2, 0, 1, 2]], torch.arange(6) % PRODUCTS),
    "one product": (torch.eye(SIZE), torch.zeros(6, dtype=torch.long)),
    "no positives": (torch.eye(SIZE)[:4], torch.arange(4)),
    "one image": (torch.eye(SIZE)[:1], torch.tensor([2])),
    "empty": (torch.empty(0, SIZE), torch.empty(0, dtype=torch.long)),
    "long vectors": (1e4 * torch.eye(SIZE), torch.arange(6) % PRODUCTS),
}


@grid
def test_degenerate_batches_stay_finite(case: Case) -> None:
    for name, (embeddings, labels) in DEGENERATE.items():
        for found in value_and_gradients(case, embeddings, labels):
            assert found is None or found.isfinite().all(), name


@grid
def test_nan_in_nan_out(case: Case) -> None:
    """Also where the row is in no pair, since its gradient may be NaN all the same; and no index goes astray."""
    for rows in (0, -1, slice(None)):
        for labels in (batch()[1], torch.arange(12) // 11):  # the last row is the only one of its product
            embeddings = batch()[0]
            embeddings[rows, 0] = torch.nan
            embeddings.requires_grad_()
            value = case.loss(embeddings, labels)
            value.backward()
            assert value.isnan(), rows


@grid
def test_bad_shapes_are_refused(case: Case) -> None:
    embeddings, labels = batch()
    for bad in (embeddings[0], embeddings.long()):
        with pytest.raises(BadInputError, match="floating-point matrix"):
            case.loss(bad, labels)


@every_case(but=("target-l2",))
def test_bad_labels_are_refused(case: Case) -> None:
    embeddings, labels = batch()
    module = case.module()
    bad = [labels.float(), labels[:-1], labels[:, None], labels > 1]
    if hasattr(module, "assignment"):
        bad += [labels - 1, labels + 1]
    for wrong in bad:
        with pytest.raises(BadInputError, match="labels must be"):
            module(embeddings, wrong)
    assert module(embeddings, labels.byte()) == module(embeddings, labels)


@every_case(but=("mined-semi-hard", "mined-hard", "target-l2"))  # miners list triplets; the targets are drawn here
@pytest.mark.slow
def test_compiles_without_a_break(case: Case) -> None:
    embeddings, labels = batch()
    module = case.module()
    torch.compiler.reset()
    compiled = torch.compile(lambda x: case.call(module, x, labels), fullgraph=True, backend="aot_eager")
    x, y = (embeddings.clone().requires_grad_() for _ in range(2))
    one, other = compiled(x), case.call(module, y, labels)
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(torch.autograd.grad(one, x), torch.autograd.grad(other, y))
