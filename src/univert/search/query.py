"""What goes into a search and what comes out: checked queries and filters, hits and pictures."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, SupportsIndex, cast

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from univert.core.errors import BadInputError, did_you_mean

FilterValue = str | None | Sequence[str | None]
"""A value, None (the column is empty), or several of them, any of which may match."""

Where = Mapping[str, FilterValue]
"""Filters by column name; an image must satisfy all of them."""

FILTER_COLUMNS: Final = ("id", "vertical", "product", "brand", "style", "split", "source")
"""The columns that a search can be narrowed by, and that each hit tells."""

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


def check_column(column: str) -> str:
    """The name of a column that a search can be narrowed by, or a BadInputError that lists them."""
    if column not in FILTER_COLUMNS:
        raise BadInputError(f"cannot filter by {column!r}; filter by one of {', '.join(FILTER_COLUMNS)}")
    return column


def check_where(where: Where | None, verticals: Sequence[str] | None = None) -> dict[str, list[str | None]]:
    """The values of each filter, any of which may match.

    Args:
        where: column name -> a value, None (the column is empty), or a list of values any of which may match.
            Values are compared exactly, letter case included.
        verticals: those of the index, if known: a slip must not look like "nothing found".

    Raises:
        BadInputError: an unknown column or vertical (the message names the nearest), an empty list, a value not text.
    """
    checked = {check_column(column): _values(column, value) for column, value in (where or {}).items()}
    for value in checked.get("vertical", ()):
        if verticals is not None and value not in verticals:
            raise BadInputError(f"no vertical {value!r} in the index; {did_you_mean(str(value), verticals)}")
    return checked


def _values(column: str, value: FilterValue) -> list[str | None]:
    one = value is None or isinstance(value, str | bytes) or not isinstance(value, Iterable)
    values = [cast("str | None", value)] if one else list(cast("Iterable[str | None]", value))
    if not values:
        raise BadInputError(f"the filter on {column} has no values; give at least one, or leave the filter out")
    for item in values:
        if item is not None and not isinstance(item, str):
            raise BadInputError(f"the filter on {column} must be text, got {item!r}; write it as a string")
        try:
            (item or "").encode()
        except UnicodeEncodeError:
            raise BadInputError(f"the filter on {column} must be valid Unicode, got {item!r}") from None
    return values
