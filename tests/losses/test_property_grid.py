"""Every loss of the package meets the same demands; a loss that is not listed here fails the first test."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import tests.losses
import univert.losses
from tests.losses.case import PRODUCTS, SIZE, Case
from univert.core.errors import BadInputError
from univert.losses.proxy_nca_loss import ProxyNCALoss
from univert.losses.target_l2_loss import target_l2_loss
from univert.losses.triplet_margin_loss import TripletMarginLoss

CASES: dict[str, Case] = {}
for _info in pkgutil.iter_modules(tests.losses.__path__):
    if _info.name.startswith("cases_"):
        CASES |= importlib.import_module(f"tests.losses.{_info.name}").CASES
grid = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def batch(size: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = nn.functional.normalize(torch.randn(size, SIZE, generator=generator), dim=1)
    return embeddings, torch.arange(size) % PRODUCTS


def gradient(loss: Callable[[Tensor, Tensor], Tensor], embeddings: Tensor, labels: Tensor) -> Tensor:
    leaf = embeddings.clone().requires_grad_()
    loss(leaf, labels).backward()
    assert leaf.grad is not None
    return leaf.grad


def test_every_loss_is_in_the_grid() -> None:
    found = set()
    for info in pkgutil.iter_modules(univert.losses.__path__):
        module = importlib.import_module(f"univert.losses.{info.name}")
        found |= {
            item
            for item in vars(module).values()
            if isinstance(item, type) and issubclass(item, nn.Module) and item.__module__ == module.__name__
        }
    assert found == {case.module for case in CASES.values()}


@grid
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_equal_the_oracle(case: Case, seed: int) -> None:
    embeddings, labels = batch(seed=seed)
    assert case.loss(embeddings, labels).item() == pytest.approx(case.oracle(embeddings, labels).item(), rel=1e-5)
    torch.testing.assert_close(
        gradient(case.loss, embeddings, labels), gradient(case.oracle, embeddings, labels), rtol=1e-4, atol=1e-5
    )


@grid
def test_gradient_equals_finite_differences(case: Case) -> None:
    embeddings, labels = batch(6)
    found = gradient(case.loss, embeddings, labels)
    step = 1e-4
    for row, column in ((0, 0), (3, 2), (5, 5)):
        shift = torch.zeros(6, SIZE, dtype=torch.float64)
        shift[row, column] = step
        x = embeddings.double()
        slope = (case.oracle(x + shift, labels) - case.oracle(x - shift, labels)) / (2 * step)
        assert found[row, column].item() == pytest.approx(slope.item(), rel=1e-3, abs=1e-4)


@grid
def test_order_of_the_batch_does_not_matter(case: Case) -> None:
    embeddings, labels = batch()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(case.loss(embeddings[order], labels[order]), case.loss(embeddings, labels))


@grid
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(case: Case, dtype: torch.dtype) -> None:
    embeddings, labels = batch()
    value = case.loss(embeddings.to(dtype), labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, case.loss(embeddings.to(dtype).float(), labels))
    assert gradient(case.loss, embeddings.to(dtype), labels).isfinite().all()


@grid
@pytest.mark.parametrize(
    ("embeddings", "labels"),
    [
        pytest.param(torch.ones(6, SIZE), torch.arange(6) % PRODUCTS, id="collapsed"),
        pytest.param(torch.zeros(6, SIZE), torch.arange(6) % PRODUCTS, id="zero"),
        pytest.param(torch.eye(SIZE), torch.zeros(6, dtype=torch.long), id="one product"),
        pytest.param(torch.eye(SIZE)[:4], torch.arange(4), id="no positives"),
        pytest.param(torch.eye(SIZE)[:1], torch.tensor([2]), id="one image"),
        pytest.param(torch.empty(0, SIZE), torch.empty(0, dtype=torch.long), id="empty"),
        pytest.param(1e4 * torch.eye(SIZE), torch.arange(6) % PRODUCTS, id="long vectors"),
    ],
)
def test_degenerate_batches_stay_finite(case: Case, embeddings: Tensor, labels: Tensor) -> None:
    assert case.loss(embeddings, labels).isfinite()
    assert gradient(case.loss, embeddings, labels).isfinite().all()


@grid
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_zero_rows_in_half_precision_have_finite_gradients(case: Case, dtype: torch.dtype) -> None:
    embeddings, labels = batch()
    embeddings[::3] = 0
    assert gradient(case.loss, embeddings.to(dtype), labels).isfinite().all()


@grid
def test_bad_shapes_are_refused(case: Case) -> None:
    embeddings, labels = batch()
    with pytest.raises(BadInputError, match="floating-point matrix"):
        case.loss(embeddings[0], labels)
    with pytest.raises(BadInputError, match="floating-point matrix"):
        case.loss(embeddings.long(), labels)


@pytest.mark.parametrize("form", ["softmax", "paper"])
def test_proxy_nca_is_finite_at_extreme_scale(form: str) -> None:
    embeddings, labels = batch()
    loss = ProxyNCALoss(PRODUCTS, SIZE, softmax_scale=1e4, form=form, seed=0)  # type: ignore[arg-type]
    value = loss(embeddings, labels)
    value.backward()
    assert value.isfinite()
    assert loss.bank.proxies.grad is not None
    assert loss.bank.proxies.grad.isfinite().all()


def test_labels_are_checked() -> None:
    embeddings, labels = batch()
    loss = ProxyNCALoss(PRODUCTS, SIZE, seed=0)
    for bad in (labels.float(), labels[:-1], labels - 1, labels + 1, labels[:, None]):
        with pytest.raises(BadInputError):
            loss(embeddings, bad)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProxyNCALoss(1, 4), "at least 2 proxies"),
        (lambda: ProxyNCALoss(4, 4, softmax_scale=0), "scale"),
        (lambda: ProxyNCALoss(4, 4, form="cosine"), "form"),  # type: ignore[arg-type]
        (lambda: ProxyNCALoss(4, 0), "size"),
        (lambda: TripletMarginLoss(0), "margin"),
        (lambda: target_l2_loss(torch.ones(2, 3), torch.ones(2, 4)), "same shape"),
    ],
)
def test_settings_are_checked(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        make()
