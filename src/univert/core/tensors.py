"""Tensors: lengths and distances of rows, checks of indices, and where to compute.

In Univert "distance" means *squared Euclidean* unless named otherwise.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from univert.core.errors import BadInputError

SHORTEST = 1e-12
"""Rows no longer than this count as zero."""


def unit_rows(x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
    """Scale each row to length 1, in float32; a zero row becomes zero and gets a zero gradient, never NaN."""
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


def value_range(values: Integer[Tensor, "..."]) -> tuple[int, int]:
    """Smallest and largest of at least one value, with one wait for the device."""
    low, high = torch.stack(values.aminmax()).tolist()
    return int(low), int(high)


def check_indices(values: Integer[Tensor, "..."], limit: int, *, name: str, rule: str = "must lie in 0..{}") -> None:
    """Refuse values outside 0..limit-1; under `torch.compile` that is left to the look-ups, which fail less clearly.

    Args:
        values: any number of them, any shape.
        limit: how many things there are to index.
        name: of the values, for the message.
        rule: what they must be, with a place for the largest one allowed.

    Raises:
        BadInputError: naming the rule, the smallest and the largest value.

    Example:
        >>> check_indices(torch.tensor([0, 7]), 5, name="labels")
        Traceback (most recent call last):
        univert.core.errors.BadInputError: labels must lie in 0..4, got 0..7
    """
    if not values.numel() or torch.compiler.is_compiling():
        return
    low, high = value_range(values)
    if not 0 <= low <= high < limit:
        raise BadInputError(f"{name} {rule.format(limit - 1)}, got {low}..{high}")


def choose_device(name: str) -> torch.device:
    """A device that works, as torch names it, or `auto`: CUDA where there is one, else the CPU.

    Raises:
        BadInputError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInputError(f"device {name!r} cannot be used: {reason}; try auto or cpu") from None
    return device
