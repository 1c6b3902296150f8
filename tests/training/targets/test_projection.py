from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from univert.core.errors import BadInputError
from univert.training.targets.projection import Distortion, fit_projection, measure_distortion, unit

SEEDS = st.integers(0, 1000)


def rows(seed: int, count: int = 30, width: int = 6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return unit(rng.normal(size=(count, width)) * rng.uniform(0.1, 2, width))


@given(SEEDS, st.integers(1, 6), st.integers(0, 4), st.sampled_from(["pca", "random"]))
def test_growing_is_an_isometry(seed: int, width: int, more: int, kind: str) -> None:
    vectors = rows(seed, width=width)
    grown = vectors @ fit_projection(vectors, width + more, kind=kind, seed=seed)  # type: ignore[arg-type]
    np.testing.assert_allclose(grown @ grown.T, vectors @ vectors.T, atol=1e-9)


@given(SEEDS, st.integers(1, 5), st.integers(1, 12))
def test_pca_keeps_as_much_as_the_singular_values_allow(seed: int, size: int, count: int) -> None:
    vectors = rows(seed, count)
    projection = fit_projection(vectors, size)
    np.testing.assert_allclose(projection.T @ projection, np.eye(size), atol=1e-9)
    singular = np.linalg.svd(vectors, compute_uv=False)
    assert ((vectors @ projection) ** 2).sum() == pytest.approx((singular[:size] ** 2).sum())


def test_random_directions_keep_norms_in_expectation() -> None:
    vector = rows(0, 1, 40)
    lengths = [((vector @ fit_projection(vector, 10, kind="random", seed=seed)) ** 2).sum() for seed in range(300)]
    assert np.mean(lengths) == pytest.approx(1, abs=0.05)
    same = [fit_projection(vector, 10, kind="random", seed=3) for _ in range(2)]
    np.testing.assert_array_equal(*same)


def test_unit_leaves_zeros_alone() -> None:
    np.testing.assert_allclose(unit(np.array([[3.0, 4.0], [0.0, 0.0]])), [[0.6, 0.8], [0, 0]])


def test_an_isometry_distorts_nothing() -> None:
    vectors, groups = rows(1), np.arange(30) % 3
    assert measure_distortion(vectors, vectors @ fit_projection(vectors, 9), groups) == Distortion(
        energy_kept=pytest.approx(1), distance_error=pytest.approx(0, abs=1e-6), order_kept=1.0
    )


def test_distortion_is_that_of_all_pairs_within_groups() -> None:
    vectors, groups = rows(2, 24), np.repeat([0, 1, 2], 8)
    projected = vectors @ fit_projection(vectors, 2)
    found = measure_distortion(vectors, projected, groups)
    old, new = [], []
    for i in range(24):
        for j in range(24):
            if i != j and groups[i] == groups[j]:
                old.append(((vectors[i] - vectors[j]) ** 2).sum())
                new.append(((unit(projected)[i] - unit(projected)[j]) ** 2).sum())
    error = np.abs(np.subtract(new, old)).mean() / np.mean(old)
    assert found.distance_error == pytest.approx(error, rel=0.05)
    assert found.energy_kept == pytest.approx((projected**2).sum() / 24)
    kept = [(np.sign(old[a] - old[b]) == np.sign(new[a] - new[b])) for a in range(60) for b in range(60, 120)]
    assert found.order_kept == pytest.approx(np.mean(kept), abs=0.06)


def test_other_groups_do_not_matter() -> None:
    vectors, groups = rows(3, 20), np.repeat([0, 1], 10)
    moved = vectors.copy()
    moved[groups == 1] = vectors[groups == 1] @ fit_projection(vectors, 6, kind="random")
    assert measure_distortion(vectors, moved, groups).distance_error == pytest.approx(0, abs=1e-9)


def test_bad_input_is_named() -> None:
    with pytest.raises(BadInputError, match="at least one row"):
        fit_projection(np.zeros((0, 3)), 2)
    with pytest.raises(BadInputError, match="size must be at least 1, got 0"):
        fit_projection(rows(0), 0)
    with pytest.raises(BadInputError, match="kind must be 'pca' or 'random', got 'lda'"):
        fit_projection(rows(0), 2, kind="lda")  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="as many rows, got 30, 30, 2"):
        measure_distortion(rows(0), rows(0), np.zeros(2, np.int64))
    with pytest.raises(BadInputError, match="at least two vectors"):
        measure_distortion(rows(0, 2), rows(0, 2), np.arange(2))
