from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from univert.core.errors import BadInputError
from univert.training.targets.placement import place_apart, simplex, simplex_size
from univert.training.targets.projection import unit


@given(st.integers(0, 1000), st.integers(1, 6), st.floats(0, 0.99), st.sampled_from([np.float32, np.float64]))
def test_inner_products_change_by_one_line_within_and_by_a_lower_one_between(
    seed: int, count: int, offset: float, kind: type[np.floating]
) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit(rng.normal(size=(12, 5))).astype(kind)
    verticals = rng.integers(count, size=12)
    placed = place_apart(vectors, verticals, count=count, offset=offset)
    assert placed.shape == (12, 5 + simplex_size(count))
    assert placed.dtype == kind
    before, after = (np.float64(rows) @ np.float64(rows).T for rows in (vectors, placed))
    within = verticals[:, None] == verticals
    corners = np.where(within, 1, -1 / max(1, count - 1))
    np.testing.assert_allclose(after, (1 - offset**2) * before + offset**2 * corners, atol=1e-6)


def test_the_corners_are_as_far_apart_as_they_can_be() -> None:
    for count in range(2, 9):
        corners = simplex(count)
        assert corners.shape == (count, count - 1)
        expected = np.full((count, count), -1 / (count - 1))
        np.fill_diagonal(expected, 1)
        np.testing.assert_allclose(corners @ corners.T, expected, atol=1e-9)


def test_verticals_on_top_of_each_other_come_apart() -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(8, 4)))
    twice, verticals = np.concatenate([vectors, vectors]), np.repeat([0, 1], 8)
    gaps = []
    for offset in (0.0, 0.3, 0.6):
        placed = place_apart(twice, verticals, count=2, offset=offset)
        gaps.append(np.linalg.norm(placed[:8] - placed[8:], axis=1).mean())
    np.testing.assert_allclose(gaps, [0, 0.6, 1.2], atol=1e-9)


def test_bad_input_is_named() -> None:
    vectors = np.eye(3)
    with pytest.raises(BadInputError, match=r"offset must lie in \[0, 1\), got 1"):
        place_apart(vectors, np.zeros(3, np.int64), count=1, offset=1)
    with pytest.raises(BadInputError, match=r"verticals must lie in 0\.\.1, got -1\.\.0"):
        place_apart(vectors, np.array([0, -1, 0]), count=2, offset=0.3)
