from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.search.conftest import build, unit
from univert.core.errors import BadInputError
from univert.search.exact import check_recall, exact_neighbours
from univert.search.index import Index


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


def test_the_recall_of_an_index_is_what_its_answers_lack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(60, 8)))
    index = build(tmp_path / "index", vectors, {"id": [f"i{n}" for n in range(60)], "vertical": ["v"] * 60})
    assert check_recall(index, queries=100) == check_recall(index, queries=100, seed=1)
    found = check_recall(index, k=4, queries=20)
    assert (found.images, found.queries, found.recall, found.lowest, found.approximate) == (60, 20, 1.0, 1.0, False)
    assert check_recall(index, k=500).recall == 1, "more than there are"
    answer = Index.search_many

    def worse(self: Index, vectors: np.ndarray, k: int, *, exact: bool = False, **options: object) -> object:
        """The first query's answer lacks its two nearest but itself."""
        answers = answer(self, vectors, k, exact=exact, **options)  # type: ignore[arg-type]
        return answers if exact else [[answers[0][0], *answers[0][3:]], *answers[1:]]

    monkeypatch.setattr(Index, "search_many", worse)
    found = check_recall(index, k=4, queries=20)
    assert (found.recall, found.lowest) == (pytest.approx(1 - 0.5 / 20), 0.5)
    with pytest.raises(BadInputError, match="queries must be at least 1"):
        check_recall(index, queries=0)
