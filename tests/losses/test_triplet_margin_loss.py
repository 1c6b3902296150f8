from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.losses.watch import assert_same_gradients
from tests.oracles import points as oracles
from univert.core.errors import BadInputError
from univert.losses.triplet_margin_loss import Mining, TripletMarginLoss, triplet_margin_loss

every_distance = pytest.mark.parametrize("distance", ["squared", "plain"])


def batch(rows: int = 40, products: int = 7, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Products of very different sizes, some with one image."""
    generator = torch.Generator().manual_seed(seed)
    x = nn.functional.normalize(torch.randn(rows, 5, generator=generator), dim=1)
    return x, (torch.rand(rows, generator=generator).square() * products).long()


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(0, 12),
    products=st.integers(1, 6),
    margin=st.floats(1e-3, 5),
    mining=st.sampled_from(get_args(Mining)),
    plain=st.booleans(),
    apart=st.booleans(),
)
def test_any_batch_equals_the_oracle(
    seed: int, rows: int, products: int, margin: float, mining: Mining, plain: bool, apart: bool
) -> None:
    x, y = batch(rows, products, seed)
    verticals = y % 2 if apart else None
    loss = TripletMarginLoss(margin, mining=mining, distance="plain" if plain else "squared")
    value = loss(x, y, verticals=verticals)
    wanted = oracles.triplet_margin(x, y, margin, mining=mining, plain=plain, verticals=verticals)
    assert value.item() == pytest.approx(wanted.item(), rel=1e-4, abs=1e-6)
    assert_same_gradients(
        lambda x: loss(x, y, verticals=verticals),
        lambda x: oracles.triplet_margin(x, y, margin, mining=mining, plain=plain, verticals=verticals),
        x,
    )


def test_ties_are_no_triplets_and_a_lost_margin_adds_none() -> None:
    # all four points are exactly 2 apart (squared): no negative is farther than the positive
    square, y = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]), torch.tensor([0, 0, 1, 1])
    assert triplet_margin_loss(torch.eye(4), y).item() == 0
    assert triplet_margin_loss(torch.eye(4), y, mining="all").item() == pytest.approx(0.2)
    # distances near 1e8, where float32 cannot hold own + 0.2: the window is empty, not inside out
    assert triplet_margin_loss(1e4 * square, y).item() == 0


@every_distance
def test_given_triplets_are_exactly_those_that_count(distance: Any) -> None:
    x, y = batch(10, 3)
    loss = TripletMarginLoss(0.5, distance=distance)
    triplets = (torch.tensor([0, 0, 3]), torch.tensor([1, 1, 2]), torch.tensor([5, 6, 7]))

    def naive(x: Tensor) -> Tensor:
        d = [
            [oracles.distance(x.double(), int(i), int(j), plain=distance == "plain") for i, j in pairs]
            for pairs in (zip(triplets[0], triplets[1], strict=True), zip(triplets[0], triplets[2], strict=True))
        ]
        losses = [(0.5 + p - n).clamp_min(0) for p, n in zip(*d, strict=True)]
        return torch.stack([one for one in losses if one > 0]).mean()

    torch.testing.assert_close(loss(x, y, triplets).double(), naive(x), rtol=1e-4, atol=1e-5)
    assert_same_gradients(lambda x: loss(x, y, triplets), naive, x)
    none = (torch.empty(0, dtype=torch.long),) * 3
    value = loss(x.requires_grad_(), y, none)
    value.backward()
    assert value.item() == 0
    assert not x.grad.any()


@pytest.mark.parametrize(
    ("triplets", "message"),
    [
        ((torch.tensor([0]),) * 2, "3 integer vectors"),
        ((torch.tensor([0]), torch.tensor([0]), torch.tensor([0]), torch.tensor([1, 2])), "the last two are as long"),
        ((torch.tensor([0]),) * 2 + (torch.tensor([10]), torch.tensor([0])), r"rows 0..9 of the batch"),
        ((torch.tensor([0]), torch.tensor([1, 2]), torch.tensor([0])), "one length"),
        ((torch.tensor([0.0]),) * 3, "3 integer vectors"),
        ((torch.tensor([0]), torch.tensor([1]), torch.tensor([10])), r"rows 0..9"),
        ((torch.tensor([-1]), torch.tensor([1]), torch.tensor([1])), r"rows 0..9"),
    ],
)
def test_bad_triplets_are_refused(triplets: Any, message: str) -> None:
    x, y = batch(10, 3)
    with pytest.raises(BadInputError, match=message):
        TripletMarginLoss()(x, y, triplets)


def test_verticals_are_checked() -> None:
    x, y = batch(4, 2)
    triplets = (torch.tensor([0]), torch.tensor([1]), torch.tensor([2]))
    with pytest.raises(BadInputError, match="verticals go with neither"):
        TripletMarginLoss()(x, y, triplets, verticals=y)
    with pytest.raises(BadInputError, match="verticals must be as many"):
        TripletMarginLoss()(x, y, verticals=y[:-1])


def test_the_search_is_a_sound_operator() -> None:
    x, y = batch()
    operator, checks = (
        torch.ops.univert.mined_triplets.default,
        ("test_schema", "test_autograd_registration", "test_faketensor"),
    )
    for wanted in (True, False):
        arguments = (x.requires_grad_(wanted), y, None, 0.2, "semi-hard", False, wanted)
        torch.library.opcheck(operator, arguments, test_utils=checks)
