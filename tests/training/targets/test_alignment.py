import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA

from univert.training.targets.alignment import fit_projection, orthogonal_alignment, pca_reduced, unit

SIZE = 6
SEEDS = st.integers(0, 1000)


def unit_rows(seed: int, count: int = 40, width: int = SIZE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return unit(rng.normal(size=(count, width)) * rng.uniform(0.1, 2, width))


@given(SEEDS, st.integers(1, 40))
def test_alignment_is_the_best_rotation_and_keeps_distances(seed: int, count: int) -> None:
    vectors, reference = unit_rows(seed, count), unit_rows(seed + 1, count)
    rotation = orthogonal_alignment(vectors, reference)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(SIZE), atol=1e-9)
    expected, _ = orthogonal_procrustes(vectors, reference)
    error, best = (np.linalg.norm(vectors @ q - reference) for q in (rotation, expected))
    assert error == pytest.approx(best)
    np.testing.assert_allclose(vectors @ rotation @ (vectors @ rotation).T, vectors @ vectors.T, atol=1e-9)


def test_reduced_vectors_are_those_of_a_pca() -> None:
    vectors = unit_rows(3, 50, 10) * np.arange(1, 11)
    np.testing.assert_allclose(np.abs(pca_reduced(vectors, 4)), np.abs(PCA(4).fit_transform(vectors)), atol=1e-8)
    assert (pca_reduced(unit_rows(0, 20, 3), 5)[:, 3:] == 0).all(), "directions that do not exist"


@given(SEEDS, st.integers(1, 6), st.integers(0, 4))
def test_a_projection_to_a_larger_width_is_an_isometry(seed: int, width: int, more: int) -> None:
    vectors = unit_rows(seed, width=width)
    grown = vectors @ fit_projection(vectors, width + more)
    np.testing.assert_allclose(grown @ grown.T, vectors @ vectors.T, atol=1e-9)


@given(SEEDS, st.integers(1, 5), st.integers(1, 12))
def test_a_projection_keeps_as_much_as_the_singular_values_allow(seed: int, size: int, count: int) -> None:
    vectors = unit_rows(seed, count)
    projection = fit_projection(vectors, size)
    np.testing.assert_allclose(projection.T @ projection, np.eye(size), atol=1e-9)
    singular = np.linalg.svd(vectors, compute_uv=False)
    assert ((vectors @ projection) ** 2).sum() == pytest.approx((singular[:size] ** 2).sum())
