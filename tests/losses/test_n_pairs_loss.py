from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.losses.watch import assert_same_gradients, gradients
from tests.oracles import points as oracles
from univert.core.errors import BadInputError
from univert.losses.n_pairs_loss import NPairsLoss, Pairs, n_pairs_loss

every_kind = pytest.mark.parametrize("pairs", ["all", "one"])


def batch(rows: int = 20, products: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 5, generator=generator), torch.randint(products, (rows,), generator=generator)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(0, 12),
    products=st.integers(1, 6),
    scale=st.floats(1e-2, 5),
    weight=st.floats(0, 1),
    pairs=st.sampled_from(["all", "one"]),
    chunk_rows=st.sampled_from([None, 1, 5]),
)
def test_any_batch_equals_the_oracle(
    seed: int, rows: int, products: int, scale: float, weight: float, pairs: Pairs, chunk_rows: int | None
) -> None:
    x, y = batch(rows, products, seed)

    def loss(x: Tensor) -> Tensor:
        return n_pairs_loss(x, y, l2_reg_weight=weight, pairs=pairs, scale=scale, chunk_rows=chunk_rows)

    wanted = oracles.n_pairs(x, y, weight, pairs, scale)
    assert loss(x).item() == pytest.approx(wanted.item(), rel=1e-4, abs=1e-5)
    assert_same_gradients(loss, lambda x: oracles.n_pairs(x, y, weight, pairs, scale), x, tolerance=1e-3)


def test_one_pair_a_product_is_cross_entropy_over_pairs() -> None:
    x, _ = batch(12)
    y = torch.arange(6).repeat(2)
    wanted = nn.functional.cross_entropy(x[:6] @ x[6:].T, torch.arange(6))
    torch.testing.assert_close(n_pairs_loss(x, y, pairs="one", scale=1.0), wanted)


def test_one_pair_a_product_leaves_the_other_images_alone() -> None:
    x, _ = batch(12)
    y = torch.tensor([0, 1, 0, 1, 0, 1, 2, 0, 1, 2, 3, 3])
    (gradient,) = gradients(lambda x: n_pairs_loss(x, y, pairs="one"), x)
    used = {0, 2, 1, 3, 6, 9, 10, 11}
    assert {int(i) for i in gradient.any(1).nonzero()} == used


@every_kind
def test_finite_at_extreme_scale(pairs: Pairs) -> None:
    x, y = batch()
    loss = NPairsLoss(pairs=pairs, scale=1e4)
    assert loss(x, y).isfinite()
    assert gradients(lambda x: loss(x, y), x)[0].isfinite().all()


@pytest.mark.slow
@every_kind
def test_compiles_without_a_break(pairs: Pairs) -> None:
    x, y = batch()
    loss = NPairsLoss(pairs=pairs, l2_reg_weight=0.1)
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert_same_gradients(lambda x: compiled(x, y), lambda x: loss(x, y), x)


@every_kind
def test_autocast_does_not_coarsen_it(pairs: Pairs) -> None:
    x, y = batch()
    loss = NPairsLoss(pairs=pairs, l2_reg_weight=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(x, y)
    torch.testing.assert_close(value, loss(x, y), rtol=0, atol=0)


def test_settings_are_checked() -> None:
    with pytest.raises(BadInputError, match="l2_reg_weight"):
        NPairsLoss(l2_reg_weight=-1)
    with pytest.raises(BadInputError, match="pairs must be"):
        NPairsLoss(pairs="two")  # type: ignore[arg-type]
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(BadInputError, match="scale"):
            NPairsLoss(scale=scale)
