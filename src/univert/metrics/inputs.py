"""What every metric takes: vectors and the products they show, checked once, with one message a mistake."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from univert.core.errors import BadInputError

Vectors: TypeAlias = npt.NDArray[np.floating[Any]]
Codes: TypeAlias = npt.NDArray[np.int64]
Labels: TypeAlias = Sequence[str | None] | Sequence[int] | npt.NDArray[Any]
"""One product a row: names, with `None` for an unlabelled row, or integer codes, negative for unlabelled."""

UNLABELLED = -1


def check_vectors(vectors: Vectors, *, name: str = "vectors", size: int | None = None) -> Vectors:
    """The vectors, an array or a tensor, as a finite (N, D) array with at least one row and one column.

    Raises:
        BadInputError: another shape or type, no rows, another D than `size`, or NaN or infinite values.
    """
    array = _as_array(vectors)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise BadInputError(
            f"{name} must be an (N, D) array of real numbers, got shape {array.shape} of {array.dtype}; "
            "pass one row per image, as Embedder.embed returns them"
        )
    if 0 in array.shape:
        raise BadInputError(
            f"{name} must hold at least one row and one column, got shape {array.shape}; "
            "check that the selection of the catalogue is not empty"
        )
    if size is not None and array.shape[1] != size:
        raise BadInputError(
            f"{name} must have {size} columns like the query vectors, got {array.shape[1]}; "
            "embed both with the same model"
        )
    # The extremes are infinite or NaN exactly when some value is; this needs no (N, D) mask.
    if not (np.isfinite(array.max()) and np.isfinite(array.min())):
        bad = next(row for row in range(len(array)) if not np.isfinite(array[row]).all())
        raise BadInputError(
            f"{name} must be finite, got NaN or infinity (first in row {bad}); "
            "check the model's weights for NaN, or that its training did not diverge"
        )
    return array


def check_length(values: Sequence[Any] | npt.NDArray[Any], rows: int, *, name: str, of: str) -> None:
    """Refuse anything but a list that has one entry for each row of the vectors."""
    given = len(values) if hasattr(values, "__len__") else values
    if given != rows:
        raise BadInputError(
            f"{name} must have one entry for each of the {rows} rows of {of}, got {given}; "
            "take both from the same selection of the catalogue"
        )


def label_codes(*label_lists: Labels) -> list[Codes]:
    """Integer codes of product labels, in one numbering over all lists; -1 where a row is unlabelled.

    Names are numbered in sorted order, so that the codes do not depend on the order of the rows. Integer
    labels stay as they are, all negative ones becoming -1.

    Raises:
        BadInputError: labels that are neither names, None nor integers, or names beside integers.
    """
    values = [_as_list(labels) for labels in label_lists]
    if any(isinstance(label, list) for labels in values for label in labels):
        raise BadInputError("labels must be one name or integer code for each row, got several; give a plain list")
    # a dict keeps the order, so that the message names the first one
    known = dict.fromkeys(label for labels in values for label in labels if label is not None)
    if all(isinstance(label, int) and not isinstance(label, bool) for label in known):
        plain = [[UNLABELLED if label is None or label < 0 else label for label in labels] for labels in values]
        return [np.array(labels, dtype=np.int64) for labels in plain]
    strange = next((label for label in known if not isinstance(label, str)), None)
    if strange is not None:
        raise BadInputError(
            f"labels must be all names or all integer codes (None or negative: unlabelled), got {strange!r} "
            "among others; convert them to one kind"
        )
    number = {name: code for code, name in enumerate(sorted(known))}
    number[None] = UNLABELLED
    return [np.array([number[label] for label in labels], dtype=np.int64) for labels in values]


def has_queries(codes: Codes) -> bool:
    """Whether a product has two of some images, so that one can look for the other; -1 is no product."""
    return bool((np.unique(codes[codes >= 0], return_counts=True)[1] > 1).any())


def power_of_two_scale(arrays: Iterable[Vectors]) -> float:
    """A power of two that brings the largest absolute value of all arrays into [0.5, 1).

    Multiplying by it is exact and keeps every order of distances, while squares can no longer leave float32.
    """
    largest = max(max(abs(float(array.max())), abs(float(array.min()))) for array in arrays)
    return float(np.ldexp(1.0, int(np.clip(-np.frexp(largest)[1], -1022, 1022))))


def take_float32(vectors: Vectors, rows: npt.NDArray[np.int64], scale: float) -> npt.NDArray[np.float32]:
    """`float32(vectors[rows] * scale)` as a new array, without a second copy of the whole."""
    taken = np.empty((len(rows), vectors.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), 8192):
        part = slice(start, start + 8192)
        np.multiply(vectors[rows[part]], np.float64(scale), out=taken[part], casting="same_kind")
    return taken


def _as_array(values: Any) -> npt.NDArray[Any]:
    if not hasattr(values, "detach"):
        try:
            return np.asarray(values)
        except ValueError:  # rows of different lengths
            return np.asarray(values, dtype=object)
    tensor = values.detach().cpu()  # without importing PyTorch where arrays come
    return np.asarray(tensor.float() if tensor.is_floating_point() and tensor.itemsize < 4 else tensor)


def _as_list(labels: Labels) -> list[Any]:
    # An array's or tensor's own list has plain Python strings and integers, which one type check can tell apart.
    if hasattr(labels, "tolist"):
        return list(labels.tolist())
    return [label.item() if isinstance(label, np.generic) else label for label in labels]
