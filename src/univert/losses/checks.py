"""What every loss demands of its tensors, said clearly."""

from __future__ import annotations

import math
from typing import Literal, get_args

from torch import Tensor

from univert.core.errors import BadInputError

Form = Literal["softmax", "paper"]
"""Of NCA losses: `softmax` keeps the positive in the sum, `paper` leaves it out, as printed."""


def check_form(form: str) -> None:
    """Refuse an unknown form of an NCA loss.

    Raises:
        BadInputError: neither `softmax` nor `paper`.
    """
    if form not in get_args(Form):
        raise BadInputError(f"form must be 'softmax' or 'paper', got {form!r}")


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
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype.itemsize < 2:
        found = f"{labels.dtype} of shape {tuple(labels.shape)}"
        raise BadInputError(f"{name} must be a vector of integers (int16 or wider), one an image, got {found}")
    if len(labels) != len(embeddings):
        raise BadInputError(f"{name} must be as many as the embeddings: {len(labels)} against {len(embeddings)}")
