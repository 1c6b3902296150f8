"""What every loss demands of its tensors, said clearly."""

from __future__ import annotations

from torch import Tensor

from univert.core.errors import BadInputError


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
        raise BadInputError(
            f"{name} must be a vector of integers (int16 or wider), one an image, got {found}"
        )
    if len(labels) != len(embeddings):
        raise BadInputError(
            f"{name} must be as many as the embeddings: {len(labels)} against {len(embeddings)}"
        )
