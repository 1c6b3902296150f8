from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.losses.watch import LargestTensor, assert_same_gradients, gradients
from tests.oracles import points as oracles
from univert.core.errors import BadInputError
from univert.losses.nca_loss import Form, NCALoss, nca_loss

every_form = pytest.mark.parametrize("form", ["softmax", "paper"])


def batch(rows: int = 20, products: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = nn.functional.normalize(torch.randn(rows, 5, generator=generator), dim=1)
    return x, torch.randint(products, (rows,), generator=generator)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(0, 12),
    products=st.integers(1, 6),
    scale=st.floats(1e-2, 100),
    form=st.sampled_from(["softmax", "paper"]),
    chunk_rows=st.sampled_from([None, 1, 5]),
)
def test_any_batch_equals_the_oracle(
    seed: int, rows: int, products: int, scale: float, form: Form, chunk_rows: int | None
) -> None:
    x, y = batch(rows, products, seed)

    def loss(x: Tensor) -> Tensor:
        return nca_loss(x, y, softmax_scale=scale, form=form, chunk_rows=chunk_rows)

    wanted = oracles.nca(x, y, scale, form)
    assert loss(x).item() == pytest.approx(wanted.item(), rel=1e-4, abs=1e-4)
    assert_same_gradients(loss, lambda x: oracles.nca(x, y, scale, form), x, tolerance=1e-3)


@every_form
def test_finite_and_exact_at_extreme_scale(form: Form) -> None:
    x, y = batch()
    loss = NCALoss(1e4, form=form)
    assert loss(x, y).item() == pytest.approx(oracles.nca(x, y, 1e4, form).item(), rel=1e-4)
    assert gradients(lambda x: loss(x, y), x)[0].isfinite().all()


def test_a_loss_below_float32s_rounding_of_its_parts_is_kept() -> None:
    x, y = torch.tensor([[1.0, 0], [1, 0], [-1, 0], [-1, 0]]), torch.tensor([0, 0, 1, 1])
    assert nca_loss(x, y, softmax_scale=10.0).item() == pytest.approx(2 * torch.tensor(-40.0).exp().item())


@every_form
def test_not_all_rows_times_rows_is_held(form: Form) -> None:
    x, y = torch.randn(300, 4).requires_grad_(), torch.arange(300) // 3
    with LargestTensor() as watch:
        nca_loss(x, y, form=form, chunk_rows=10).backward()
    assert watch.entries <= 300 * 300  # the comparison of labels, of one byte each
    assert nca_loss(x, y, form=form, chunk_rows=10).isfinite()


@pytest.mark.slow
@every_form
def test_compiles_without_a_break(form: Form) -> None:
    x, y = batch()
    loss = NCALoss(form=form)
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert_same_gradients(lambda x: compiled(x, y), lambda x: loss(x, y), x)


@every_form
def test_autocast_does_not_coarsen_it(form: Form) -> None:
    x, y = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = NCALoss(form=form)(x, y)
    torch.testing.assert_close(value, NCALoss(form=form)(x, y), rtol=0, atol=0)


def test_settings_are_checked() -> None:
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(BadInputError, match="softmax_scale"):
            NCALoss(scale)
    with pytest.raises(BadInputError, match="form must be"):
        NCALoss(form="cosine")  # type: ignore[arg-type]
