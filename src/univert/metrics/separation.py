"""How far the verticals lie apart in an embedding space, as numbers (the unified-embedding paper's FIG. 3 shows it)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from univert.metrics.inputs import (
    Codes,
    Vectors,
    check_length,
    check_vectors,
    label_codes,
    power_of_two_scale,
    take_float32,
)
from univert.metrics.ranking import TIE_TOLERANCE

_SIMILARITIES_AT_ONCE = 8_000_000
"""Entries of a block of the similarity matrix (32 MB in float32)."""


@dataclass(frozen=True, kw_only=True)
class VerticalSeparation:
    """One vertical's name, number of images, and purity, None where there is no other image."""

    vertical: str
    images: int
    purity: float | None


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How far the verticals of a set of vectors lie apart.

    Attributes:
        purity: the share of images whose nearest other image is of their own vertical; None for a single image.
        purity_by_chance: what shuffled verticals would give; None likewise.
        verticals: each one's numbers, in order of name.
    """

    purity: float | None
    purity_by_chance: float | None
    verticals: tuple[VerticalSeparation, ...]


def separation(vectors: Vectors, verticals: Sequence[str]) -> Separation:
    """Measure how far the verticals lie apart, exactly.

    Ties count against: an image as near to one of another vertical as to its own is not pure. Memory beyond the
    inputs: a float32 copy and some 32 MB.

    Args:
        vectors: (N, D) embeddings or learning targets.
        verticals: N names.

    Raises:
        BadInputError: arguments that do not fit.

    Example:
        >>> import numpy as np
        >>> vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> separation(vectors, ["cup", "cup", "hat", "hat"]).purity
        1.0
    """
    vectors = check_vectors(vectors)
    check_length(verticals, len(vectors), name="verticals", of="vectors")
    (codes,) = label_codes(verticals)
    sizes, count = np.bincount(codes), len(vectors)
    pure = _pure(vectors, codes)
    return Separation(
        purity=float(pure.mean()) if count > 1 else None,
        purity_by_chance=int((sizes * (sizes - 1)).sum()) / (count * (count - 1)) if count > 1 else None,
        verticals=tuple(
            VerticalSeparation(
                vertical=name, images=int(sizes[code]), purity=float(pure[codes == code].mean()) if count > 1 else None
            )
            for code, name in enumerate(sorted(set(verticals)))
        ),
    )


def _pure(vectors: Vectors, codes: Codes) -> npt.NDArray[np.bool_]:
    """(N,) whether the nearest other row is of the same vertical, in the order of the rows."""
    order = np.argsort(codes, kind="stable")
    rows = take_float32(vectors, order, power_of_two_scale([vectors]))
    bounds = np.concatenate([[0], np.cumsum(np.bincount(codes))])
    half_squares = (rows**2).sum(axis=1) / 2
    tolerance = TIE_TOLERANCE * 2 * float(half_squares.max())
    chunk = max(1, _SIMILARITIES_AT_ONCE // len(rows))
    pure = np.zeros(len(rows), dtype=np.bool_)
    for start, end in itertools.pairwise(bounds.tolist()):
        for first in range(start, end, chunk):
            here = np.arange(first, min(first + chunk, end))
            similarity = rows[here] @ rows.T - half_squares
            similarity[here - first, here] = -np.inf
            own = similarity[:, start:end].max(axis=1)
            sides = (similarity[:, :start], similarity[:, end:])
            other = np.max([side.max(axis=1, initial=-np.inf) for side in sides], axis=0)
            pure[order[here]] = (own > other + tolerance) & (own > -np.inf)
    return pure
