"""What the losses share: checks of settings and of a batch, and its positive and negative pairs."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from univert.core.errors import BadInputError

Form = Literal["softmax", "paper"]
"""Of NCA losses: `softmax` keeps the positive in the sum, `paper` leaves it out, as printed."""


def check_positive(value: float, name: str) -> None:
    """Refuse a setting that is not positive and finite.

    Args:
        value: of the setting.
        name: its name, and what it is also called: `scale (= 1/temperature)`.

    Raises:
        BadInputError: naming it.
    """
    if not 0 < value < math.inf:
        raise BadInputError(f"{name} must be positive and finite, got {value}")


def check_not_negative(value: float, name: str) -> None:
    """Refuse a setting that is below zero or not finite; as `check_positive`."""
    if not 0 <= value < math.inf:
        raise BadInputError(f"{name} must be at least 0 and finite, got {value}")


def check_choice(value: str, choices: Any, name: str) -> None:
    """Refuse a setting that is none of the words of a `Literal`; as `check_positive`."""
    if value not in get_args(choices):
        raise BadInputError(f"{name} must be one of {', '.join(get_args(choices))}; got {value!r}")


def check_embeddings(embeddings: Tensor, *, name: str = "embeddings") -> None:
    """Refuse anything but a floating-point matrix, one row an image.

    Raises:
        BadInputError: wrong dimensions or dtype.
    """
    if embeddings.ndim != 2 or not embeddings.is_floating_point():
        found = f"{embeddings.dtype} of shape {tuple(embeddings.shape)}"
        raise BadInputError(f"{name} must be a floating-point matrix (images x size), got {found}")


def check_labels(labels: Tensor, embeddings: Tensor, *, name: str = "labels") -> None:
    """Refuse anything but one integer a row of `embeddings`.

    Raises:
        BadInputError: wrong dimensions, dtype or length.
    """
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype is torch.bool:
        found = f"{labels.dtype} of shape {tuple(labels.shape)}"
        raise BadInputError(f"{name} must be a vector of integers, one an image, got {found}")
    if len(labels) != len(embeddings):
        raise BadInputError(f"{name} must be as many as the embeddings: {len(labels)} against {len(embeddings)}")


def check_batch(embeddings: Tensor, labels: Tensor) -> None:
    """Refuse anything but a matrix and its labels; see `check_embeddings` and `check_labels`."""
    check_embeddings(embeddings)
    check_labels(labels, embeddings)


def negative_mask(
    labels: Integer[Tensor, "A"],
    other_labels: Integer[Tensor, "B"],
    verticals: Integer[Tensor, "A"] | None = None,
    other_verticals: Integer[Tensor, "B"] | None = None,
) -> Bool[Tensor, "A B"]:
    """True where two rows show different products; given verticals, different products of one vertical."""
    mask_AB = labels[:, None] != other_labels
    if verticals is not None and other_verticals is not None:
        mask_AB &= verticals[:, None] == other_verticals
    return mask_AB


def positive_mask(
    labels: Integer[Tensor, "A"], other_labels: Integer[Tensor, "B"], rows: Integer[Tensor, "A"] | None = None
) -> Bool[Tensor, "A B"]:
    """True where two rows show the same product but are not the same row.

    Args:
        labels: of the rows of the matrix.
        other_labels: of its columns.
        rows: which of the columns each row is; None: row i is column i.
    """
    mask_AB = labels[:, None] == other_labels
    if rows is None:
        return mask_AB.fill_diagonal_(False)
    return mask_AB.scatter(1, rows[:, None], False)


def plain_distances(squared: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Square roots of squared distances, with gradient zero (not infinite) where that is zero. NaN stays NaN."""
    same = squared <= 0
    return torch.where(same, 0.0, torch.where(same, 1.0, squared).sqrt())
