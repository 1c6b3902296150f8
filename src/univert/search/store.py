"""The port of the index: what the rest of Univert asks of a store of vectors, whichever engine it is."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, SupportsIndex

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
    """An indexed image near a query.

    Attributes:
        id: the image's name in its catalogue.
        distance: squared Euclidean distance on the unit sphere (2 - 2 x cosine similarity): 0 the same
            direction, 2 orthogonal, 4 opposite.
        vertical: the image's vertical.
        product: its identity; None if unlabelled.
        brand: who makes the product; None if unknown.
        style: the product's type within the vertical; None if unknown.
        source: where the image was taken from; None if unknown.
        split: `train`, `val`, `test`, or None.
    """

    id: str
    distance: float
    vertical: str
    product: str | None = None
    brand: str | None = None
    style: str | None = None
    source: str | None = None
    split: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The hit as plain values, for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """What an index keeps to show an image: its bytes, or where they lie.

    Attributes:
        image: the encoded image; None where only its place is kept.
        uri: the place of the image, a `file://` address; None where the bytes are kept.
        box_xyxy_px: the item within the upright image, in pixels; None means the whole image.
    """

    image: bytes | None
    uri: str | None = None
    box_xyxy_px: tuple[float, float, float, float] | None = None


class VectorIndex(Protocol):
    """Vectors of images with their catalogue columns, searched by distance and filtered by column.

    Implementations answer with at most `k` hits, nearest first, equal distances in order of id, and refuse
    queries that come from another model: its space has nothing to do with theirs. Models that were trained to
    share the space (`univert grow`) are recorded with the index, and their queries are answered.
    """

    @property
    def size(self) -> int:
        """Length D of a vector."""
        ...

    @property
    def model_fingerprint(self) -> str:
        """The fingerprint of the model that made the vectors."""
        ...

    @property
    def compatible_models(self) -> list[str]:
        """Fingerprints of further models whose queries are answered, in the order they were recorded."""
        ...

    @property
    def version(self) -> int:
        """The number of the version; what it holds never changes."""
        ...

    @property
    def verticals(self) -> list[str]:
        """The verticals in the index, sorted."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def check_model(self, model_fingerprint: str) -> None:
        """Refuse another model before work is spent on a query; raises BadInputError that names both."""
        ...

    def search(
        self, vector: ArrayLike, k: int = 10, *, where: Where | None = None, model_fingerprint: str
    ) -> list[Hit]:
        """The `k` images nearest to one vector (D,)."""
        ...

    def search_many(
        self, vectors: ArrayLike, k: int = 10, *, where: Where | None = None, model_fingerprint: str
    ) -> list[list[Hit]]:
        """The `k` images nearest to each of several vectors (Q, D)."""
        ...

    def exact_search(
        self, vector: ArrayLike, k: int = 10, *, where: Where | None = None, model_fingerprint: str
    ) -> list[Hit]:
        """As `search`, with every vector compared: what an approximate answer is measured against."""
        ...

    def pictures(self, ids: Sequence[str]) -> list[Picture]:
        """The pictures of images, in the order asked for."""
        ...

    def row(self, name: str) -> dict[str, Any] | None:
        """The columns of an image without its vector and its picture; None if it is not in the index."""
        ...

    def vectors(self, ids: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """The vectors of images, in the order asked for."""
        ...

    def distinct(self, column: str, limit: int = 1_000) -> list[tuple[str, int]]:
        """The values of a column and how many images have each, the most frequent first."""
        ...


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
    """Vectors as a contiguous float32 array (N, D) of unit vectors.

    Args:
        vectors: anything NumPy reads as an (N, D) array.
        size: the D that is expected.
        name: what the caller calls them, for messages.

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
