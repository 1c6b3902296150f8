from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group
from sklearn.decomposition import PCA

from univert.core.errors import BadInputError
from univert.training.alignment import PCAReference, orthogonal_alignment

SIZE = 6


def unit_rows(seed: int, count: int = 40, size: int = SIZE) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, size))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@given(seed=st.integers(0, 1000), count=st.integers(1, 40))
def test_it_is_the_best_rotation_and_keeps_distances(seed: int, count: int) -> None:
    vectors, reference = unit_rows(seed, count), unit_rows(seed + 1, count)
    rotation = orthogonal_alignment(vectors, reference)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(SIZE), atol=1e-9)
    expected, _ = orthogonal_procrustes(vectors, reference)
    error, best = (np.linalg.norm(vectors @ q - reference) for q in (rotation, expected))
    assert error == pytest.approx(best)
    np.testing.assert_allclose(vectors @ rotation @ (vectors @ rotation).T, vectors @ vectors.T, atol=1e-9)


def test_it_undoes_a_rotation() -> None:
    vectors = unit_rows(0)
    turned = vectors @ ortho_group.rvs(SIZE, random_state=1)
    np.testing.assert_allclose(turned @ orthogonal_alignment(turned, vectors), vectors, atol=1e-9)


def test_shapes_are_checked() -> None:
    with pytest.raises(BadInputError, match="share a shape"):
        orthogonal_alignment(unit_rows(0), unit_rows(0)[:, :3])
    with pytest.raises(BadInputError, match="share a shape"):
        orthogonal_alignment(unit_rows(0)[:0], unit_rows(0)[:0])


def test_the_reference_is_a_pca() -> None:
    vectors = unit_rows(3, 50, 10) * np.arange(1, 11)
    ours = PCAReference(vectors, 4)(vectors)
    theirs = PCA(4).fit_transform(vectors)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-8)


def test_directions_that_do_not_exist_are_zero() -> None:
    assert (PCAReference(unit_rows(0, 20, 3), 5)(unit_rows(1, 4, 3))[:, 3:] == 0).all()
