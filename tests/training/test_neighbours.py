from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.search.conftest import MODEL, build, unit
from univert.training.neighbours import ExactNeighbours, IndexNeighbours


@pytest.fixture(scope="module")
def shop() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors, verticals, and which images can be found; many distances are tied."""
    rng = np.random.default_rng(0)
    vectors = unit(rng.integers(-1, 2, (90, 4)) + np.array([0.0, 0.0, 0.0, 3.0]))
    return vectors, rng.integers(0, 3, 90) * 7, rng.random(90) < 0.8


@pytest.mark.parametrize("k", [1, 8, 60])
def test_the_index_finds_what_comparing_all_pairs_finds(
    shop: tuple[np.ndarray, np.ndarray, np.ndarray], k: int, tmp_path: Path
) -> None:
    vectors, verticals, allowed = shop
    rows = np.random.default_rng(1).permutation(np.flatnonzero(allowed))[:40]
    index = IndexNeighbours.build(tmp_path / "index", vectors, verticals, np.flatnonzero(allowed))
    found = index(rows, k)
    expected = ExactNeighbours(vectors, verticals, allowed)(rows, k)
    assert found.shape == expected.shape == (40, k)
    np.testing.assert_array_equal(found >= 0, expected >= 0)

    def distances(near: np.ndarray) -> np.ndarray:
        far = ((vectors[rows, None] - vectors[near]) ** 2).sum(2)
        return np.where(near < 0, -1, far)

    np.testing.assert_allclose(distances(found), distances(expected), atol=1e-6)
    for row, near in zip(rows, found, strict=True):
        near = near[near >= 0]
        assert len(near) == min(k, (allowed & (verticals == verticals[row])).sum())
        assert (verticals[near] == verticals[row]).all()
        assert allowed[near].all()


def test_an_index_that_is_there_is_searched_by_its_own_ids(
    shop: tuple[np.ndarray, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    vectors, verticals, _ = shop
    ids = [f"shop/{row}" for row in range(90)]
    names = [f"kind {vertical}" for vertical in verticals]
    index = build(tmp_path / "index", vectors, {"id": ids, "vertical": names})
    assert index.model_fingerprint == MODEL
    # the last thirty images of the index are not among ours
    search = IndexNeighbours(index, ids[:60], vectors[:60], names[:60])
    found = search(np.array([3, 5]), 90)
    assert found.max() < 60
    for row, near in zip((3, 5), found, strict=True):
        expected = np.flatnonzero(verticals[:60] == verticals[row])
        assert sorted(near[near >= 0]) == expected.tolist()
