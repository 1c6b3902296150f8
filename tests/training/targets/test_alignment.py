from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group
from sklearn.decomposition import PCA

from univert.core.errors import BadInputError
from univert.training.targets.alignment import PCAReference, generalised_procrustes, orthogonal_alignment

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


def scatter(spaces: list[np.ndarray]) -> float:
    """The sum of squared distances to the mean: what generalised Procrustes analysis makes small."""
    mean = np.mean(spaces, axis=0)
    return float(sum(((space - mean) ** 2).sum() for space in spaces))


@given(seed=st.integers(0, 1000), count=st.integers(1, 5), rounds=st.integers(1, 6))
def test_more_rounds_never_bring_the_spaces_further_apart(seed: int, count: int, rounds: int) -> None:
    spaces = [unit_rows(seed + number, 12) for number in range(count)]
    errors = []
    for number in range(1, rounds + 1):
        rotations, mean = generalised_procrustes(spaces, rounds=number)
        moved = [space @ rotation for space, rotation in zip(spaces, rotations, strict=True)]
        for rotation in rotations:
            np.testing.assert_allclose(rotation.T @ rotation, np.eye(SIZE), atol=1e-9)
        np.testing.assert_allclose(mean, np.mean(moved, axis=0), atol=1e-9)
        errors.append(scatter(moved))
    slack = 1e-9 * scatter(spaces) + 1e-12
    assert all(later <= earlier + slack for earlier, later in itertools.pairwise(errors))
    assert errors[0] <= scatter(spaces) + count * slack


def test_turned_copies_of_one_cloud_fall_together() -> None:
    cloud = unit_rows(5)
    turned = [cloud @ ortho_group.rvs(SIZE, random_state=number) for number in range(4)]
    rotations, mean = generalised_procrustes(turned, cloud)
    np.testing.assert_allclose(mean, cloud, atol=1e-9)
    for space, rotation in zip(turned, rotations, strict=True):
        np.testing.assert_allclose(space @ rotation, cloud, atol=1e-9)
    _, mean = generalised_procrustes(turned)
    np.testing.assert_allclose(mean, turned[0], atol=1e-9)


def test_spaces_are_checked() -> None:
    with pytest.raises(BadInputError, match="at least one, got none"):
        generalised_procrustes([])
    with pytest.raises(BadInputError, match="share a shape"):
        generalised_procrustes([unit_rows(0), unit_rows(0)[:, :3]])
