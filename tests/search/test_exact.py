from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.search.conftest import unit
from univert.core.errors import BadInputError
from univert.search.exact import exact_neighbours


@given(
    seed=st.integers(0, 1000), rows=st.integers(1, 40), k=st.integers(1, 50), chunk_rows=st.sampled_from([1, 7, 8192])
)
@settings(max_examples=40, deadline=None)
def test_equals_sorting_all_pairs_in_python(seed: int, rows: int, k: int, chunk_rows: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-1, 2, size=(rows, 3)).astype(np.float32)
    queries = rng.integers(-1, 2, size=(4, 3)).astype(np.float32)
    allowed = rng.random(rows) < 0.7
    ids = [f"i{n}" for n in rng.permutation(rows)]
    positions, distances = exact_neighbours(queries, vectors, k, ids=ids, allowed=allowed, chunk_rows=chunk_rows)
    for query, found, far in zip(queries, positions, distances, strict=True):
        expected = sorted(
            (sum((float(a) - float(b)) ** 2 for a, b in zip(vectors[n], query, strict=True)), ids[n], n)
            for n in range(rows)
            if allowed[n]
        )[:k]
        assert found.tolist() == [n for _, _, n in expected]
        assert far.tolist() == [distance for distance, _, _ in expected]


def test_tiny_distances_survive() -> None:
    vector = unit(np.ones((1, 64)))
    near = vector.astype(np.float64)
    near[0, 0] += 1e-8
    assert exact_neighbours(near, vector, 1)[1][0, 0] == pytest.approx(1e-16, rel=1e-3)


def test_ties_go_by_position_without_ids() -> None:
    assert exact_neighbours(np.zeros((1, 2)), np.zeros((12, 2)), 11)[0].tolist() == [list(range(11))]


@pytest.mark.parametrize("k", [0, -3, 2.5, "ten", None])
def test_refuses_k_that_is_no_count(k: object) -> None:
    with pytest.raises(BadInputError, match="k must be"):
        exact_neighbours(np.zeros((1, 2)), np.zeros((3, 2)), k)  # type: ignore[arg-type]
