"""Checks of tensors that index something."""

from __future__ import annotations

import torch
from jaxtyping import Integer
from torch import Tensor

from univert.core.errors import BadInputError


def value_range(values: Integer[Tensor, "..."]) -> tuple[int, int]:
    """Smallest and largest of some values, with one wait for the device.

    Args:
        values: at least one.
    """
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
