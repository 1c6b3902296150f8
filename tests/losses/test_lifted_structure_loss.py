from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.losses.watch import LargestTensor, assert_same_gradients, gradients
from tests.oracles import points as oracles
from univert.core.errors import BadInputError
from univert.losses.lifted_structure_loss import LiftedStructureLoss, lifted_structure_loss


def batch(rows: int = 20, products: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = nn.functional.normalize(torch.randn(rows, 5, generator=generator), dim=1)
    return x, torch.randint(products, (rows,), generator=generator)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(0, 12),
    products=st.integers(1, 6),
    neg_margin=st.floats(-1, 2),
    pos_margin=st.floats(0, 1),
    scale=st.floats(0.1, 50),
)
def test_any_batch_equals_the_oracle(
    seed: int, rows: int, products: int, neg_margin: float, pos_margin: float, scale: float
) -> None:
    x, y = batch(rows, products, seed)
    loss = LiftedStructureLoss(neg_margin, pos_margin, scale=scale)
    wanted = oracles.lifted_structure(x, y, neg_margin, pos_margin, scale)
    assert loss(x, y).item() == pytest.approx(wanted.item(), rel=1e-4, abs=1e-5)
    assert_same_gradients(
        lambda x: loss(x, y), lambda x: oracles.lifted_structure(x, y, neg_margin, pos_margin, scale), x, tolerance=1e-3
    )


def test_a_large_scale_looks_at_the_nearest_negative_alone() -> None:
    x, y = batch()
    d = (x[:, None] - x).square().sum(2).sqrt()
    same = y[:, None] == y
    nearest = d.masked_fill(same, torch.inf).amin(1)
    pairs = same.fill_diagonal_(False)
    costs = (1 - torch.minimum(nearest[:, None], nearest) + d).clamp_min(0).square()
    wanted = costs[pairs].mean() / 2
    torch.testing.assert_close(lifted_structure_loss(x, y, scale=1e4), wanted, rtol=1e-3, atol=1e-4)


def test_pairs_of_pairs_are_never_listed() -> None:
    x, y = torch.randn(64, 4).requires_grad_(), torch.arange(64) // 8
    with LargestTensor() as watch:
        lifted_structure_loss(x, y).backward()
    assert watch.entries <= 64 * 64


def test_duplicates_have_finite_gradients() -> None:
    x, y = batch(8, 3)
    x, y = torch.cat([x, x]), torch.cat([y, y.flip(0)])
    assert gradients(lambda x: lifted_structure_loss(x, y), x)[0].isfinite().all()


@pytest.mark.slow
def test_compiles_without_a_break() -> None:
    x, y = batch()
    loss = LiftedStructureLoss()
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert_same_gradients(lambda x: compiled(x, y), lambda x: loss(x, y), x)


def test_autocast_does_not_coarsen_it() -> None:
    x, y = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = lifted_structure_loss(x, y)
    torch.testing.assert_close(value, lifted_structure_loss(x, y), rtol=0, atol=0)


def test_settings_are_checked() -> None:
    with pytest.raises(BadInputError, match="neg_margin"):
        LiftedStructureLoss(float("nan"))
    with pytest.raises(BadInputError, match="pos_margin"):
        LiftedStructureLoss(1.0, float("inf"))
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(BadInputError, match="scale"):
            LiftedStructureLoss(scale=scale)
