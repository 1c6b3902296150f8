"""What goes into a search and what comes out: filters, hits, pictures, and checked queries."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from univert.core.errors import BadInputError

FilterValue = str | None | Sequence[str | None]
"""A value, None (the column is empty), or several of them, any of which may match."""

Where = Mapping[str, FilterValue]
"""Filters by column name; an image must satisfy all of them."""

UNIT_NORM_TOLERANCE = 1e-3
"""How far a vector's length may be from 1: half-precision networks miss it by a few 1e-4."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """An indexed image near a query: its catalogue columns, None where unknown.

    Attributes:
        distance: squared Euclidean distance on the unit sphere (2 - 2 x cosine similarity): 0 the same direction, 2
            orthogonal, 4 opposite.
    """

    id: str
    distance: float
    vertical: str
    product: str | None = None
    brand: str | None = None
    style: str | None = None
    source: str | None = None
    split: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """What an index keeps to show an image: its bytes, or the `file://` address where they lie, and the item's box."""

    image: bytes | None
    uri: str | None = None
    box_xyxy_px: tuple[float, float, float, float] | None = None


def check_k(k: SupportsIndex) -> int:
    """The number of neighbours as an int.

    Raises:
        BadInputError: `k` is not a whole number of at least 1.
    """
    try:
        count = operator.index(k)
    except TypeError:
        raise BadInputError(f"k must be a whole number, got {k!r}") from None
    if count < 1:
        raise BadInputError(f"k must be at least 1, got {count}; ask for one neighbour or more")
    return count


def check_unit_vectors(vectors: ArrayLike, size: int, *, name: str = "vectors") -> Float[np.ndarray, "N D"]:
    """What NumPy reads as (N, D) unit vectors, D as given by `size`, as a contiguous float32 array.

    Raises:
        BadInputError: wrong shape, NaN or infinite values, or lengths other than 1.
    """
    try:
        array = np.ascontiguousarray(vectors, dtype=np.float32)
    except (TypeError, ValueError):
        raise BadInputError(f"{name} must be numbers in rows of {size}, got {type(vectors).__name__}") from None
    if array.ndim != 2 or array.shape[1] != size:
        raise BadInputError(
            f"{name} must have shape (N, {size}) as the index does, got {array.shape}; "
            "embed them with the model that made the index"
        )
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise BadInputError(f"{name} must be finite, row {row} holds NaN or infinity; look at the image it came from")
    norms = np.sqrt(np.einsum("nd,nd->n", array, array, dtype=np.float64))
    wrong = np.flatnonzero(np.abs(norms - 1) > UNIT_NORM_TOLERANCE)
    if wrong.size:
        raise BadInputError(
            f"{name} must be unit vectors, row {wrong[0]} has length {norms[wrong[0]]:.4g}; divide each by its length"
        )
    return array
