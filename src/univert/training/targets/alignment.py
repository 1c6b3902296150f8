"""Rotating the specialists' spaces towards a common reference, so that one function can reproduce them all."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def orthogonal_alignment(
    vectors: Float[np.ndarray, "N D"], reference: Float[np.ndarray, "N W"]
) -> Float[np.ndarray, "D W"]:
    """The orthogonal matrix Q that brings `vectors @ Q` nearest to `reference` in the sum of squares.

    Where the widths differ, the columns or the rows of Q are orthonormal.

    Source: the orthogonal Procrustes problem (Schoenemann 1966): Q = U V^T for vectors^T reference = U S V^T.
    """
    left, _, right = np.linalg.svd(vectors.astype(np.float64).T @ reference.astype(np.float64), full_matrices=False)
    return np.asarray(left @ right)


def pca_reduced(vectors: Float[np.ndarray, "N F"], size: int) -> Float[np.ndarray, "N D"]:
    """Vectors on their leading principal directions; missing directions are zero where the vectors have fewer."""
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    reduced = np.zeros((len(vectors), size))
    kept = principal_directions(centred)[:, :size]
    reduced[:, : kept.shape[1]] = centred @ kept
    return reduced


def principal_directions(vectors: Float[np.ndarray, "N W"]) -> Float[np.ndarray, "W W"]:
    """Directions of the second moments about the origin, the one with the most energy first, signs fixed."""
    _, directions = np.linalg.eigh(vectors.T @ vectors)
    kept = directions[:, ::-1]
    # the sign of an eigenvector is arbitrary: fix it, so that the same data give the same space
    signs = np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(kept.shape[1])])
    return np.asarray(kept * signs)


def fit_projection(vectors: Float[np.ndarray, "N W"], size: int) -> Float[np.ndarray, "W D"]:
    """The linear map that takes vectors of one width to another and keeps their distances as well as it can.

    It projects onto the leading principal directions of the second moments about the origin, which of all orthogonal
    projections loses the least of the vectors' squared length. (About the origin and not the mean, since inner
    products of unit vectors are what counts.) To the same width or a larger one the map is an isometry.
    """
    width = vectors.shape[1]
    if size >= width:
        return np.eye(width, size)
    return principal_directions(vectors.astype(np.float64))[:, :size]


def unit(rows: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Rows scaled to length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1))
