"""What losses on pairs of one batch share: who is a positive, who a negative, and the plain distance."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor


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
    """Square roots of squared distances, with gradient zero (not infinite) where the distance is zero."""
    apart = squared > 0
    return torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)
