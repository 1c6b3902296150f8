"""Distances between rows. In Univert "distance" means *squared Euclidean* unless named otherwise."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def unit_rows(x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
    """Scale each row to length 1; a zero row stays zero (and gets a zero gradient, never NaN).

    Args:
        x: any rows; half precision is computed in float32.
    """
    return torch.nn.functional.normalize(x.float(), dim=1, eps=1e-12)


def squared_distances(x: Float[Tensor, "N D"], y: Float[Tensor, "M D"]) -> Float[Tensor, "N M"]:
    """All squared Euclidean distances between the rows of two matrices, never below zero.

    Between unit vectors the value is 2 - 2 cos, in [0, 4].
    """
    x, y = x.float(), y.float()
    lengths = x.square().sum(1, keepdim=True) + y.square().sum(1)
    return torch.addmm(lengths, x, y.T, alpha=-2).clamp_min(0)
