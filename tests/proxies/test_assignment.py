"""Static assignments: shape, balance, errors."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from univert.core.errors import BadInputError
from univert.proxies.assignment import StaticAssignment


def test_one_and_several_per_product() -> None:
    one = StaticAssignment.one_per_product(4)
    assert one(torch.tensor([3, 0, 3])).tolist() == [[3], [0], [3]]
    assert (one.products, one.count, one.per_product) == (4, 4, 1)
    several = StaticAssignment.several(3, 2)
    assert several.table.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert (several.products, several.count, several.per_product) == (3, 6, 2)


@given(products=st.integers(1, 60), share=st.floats(0.01, 1), seed=st.integers(0, 5))
def test_fractional_is_balanced_and_repeatable(products: int, share: float, seed: int) -> None:
    count = max(1, int(products * share))
    assignment = StaticAssignment.fractional(products, count, seed=seed)
    sizes = assignment.table.flatten().bincount(minlength=count)
    assert len(sizes) == count
    assert sizes.max() - sizes.min() <= 1
    assert torch.equal(assignment.table, StaticAssignment.fractional(products, count, seed=seed).table)


@pytest.mark.parametrize(
    ("products", "ratio", "count", "per_product"),
    [(10, 1, 10, 1), (10, 0.5, 5, 1), (10, 0.1, 2, 1), (1, 0.1, 1, 1), (10, 0.25, 2, 1), (10, 3, 30, 3)],
)
def test_ratio_chooses(products: int, ratio: float, count: int, per_product: int) -> None:
    assignment = StaticAssignment.of_ratio(products, ratio)
    assert (assignment.products, assignment.count, assignment.per_product) == (products, count, per_product)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 3]), r"0\.\.2, got 0\.\.3"),
        (torch.tensor([-1, 2]), "leave out unlabelled"),
        (torch.tensor([0.0, 1.0]), "vector of integers"),
        (torch.tensor([True, False]), "vector of integers"),
        (torch.tensor([[0], [1]]), "vector of integers"),
    ],
)
def test_bad_labels_are_refused(labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StaticAssignment.one_per_product(3)(labels)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StaticAssignment.one_per_product(0), "products"),
        (lambda: StaticAssignment.several(3, 0), "per_product"),
        (lambda: StaticAssignment.fractional(3, 4), r"several\(\.\.\.\)"),
        (lambda: StaticAssignment.fractional(3, 0), "count"),
        (lambda: StaticAssignment.of_ratio(3, 0), "below 1 or a whole number"),
        (lambda: StaticAssignment.of_ratio(3, float("nan")), "below 1"),
        (lambda: StaticAssignment.of_ratio(3, 1.5), "whole number"),
        (lambda: StaticAssignment(torch.tensor([[0], [2]]), 2), r"0\.\.1"),
        (lambda: StaticAssignment(torch.tensor([[0.0]]), 2), "matrix of integers"),
        (lambda: StaticAssignment(torch.tensor([0]), 2), "matrix of integers"),
        (lambda: StaticAssignment(torch.empty(0, 1, dtype=torch.long), 2), "a row a product"),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        make()
