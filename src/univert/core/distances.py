"""Distances between rows. In Univert "distance" means *squared Euclidean* unless named otherwise."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

SHORTEST = 1e-12
"""Rows no longer than this count as zero."""


def unit_rows(x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
    """Scale each row to length 1; a zero row becomes zero and gets a zero gradient, never NaN.

    Args:
        x: any rows; half precision is computed in float32.
    """
    x = x.float()
    lengths = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    # dividing a short row by infinity rather than by a tiny length keeps its gradient at zero
    return x / torch.where(lengths > SHORTEST, lengths, torch.inf)


def squared_distances(x: Float[Tensor, "N D"], y: Float[Tensor, "M D"]) -> Float[Tensor, "N M"]:
    """All squared Euclidean distances between the rows of two matrices, never below zero.

    Between unit vectors the value is 2 - 2 cos, in [0, 4]. Computed in float32, also under autocast.
    """
    x, y = x.float(), y.float()
    lengths = x.square().sum(1, keepdim=True) + y.square().sum(1)
    with torch.autocast(x.device.type, enabled=False):
        return torch.addmm(lengths, x, y.T, alpha=-2).clamp_min(0)
