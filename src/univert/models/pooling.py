"""Pooling: from a map of features to one vector an image."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from univert.core.errors import BadInputError

PoolingName = Literal["avg", "max", "gem"]


class AveragePooling(nn.Module):
    """The mean over all places (Unified FIG. 2)."""

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C"]:
        """Pool (B, C, H, W) maps to (B, C) vectors."""
        return maps.mean((2, 3))


class MaxPooling(nn.Module):
    """The maximum over all places (Unified FIG. 2); often better for retrieval with proxies."""

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C"]:
        """Pool (B, C, H, W) maps to (B, C) vectors."""
        return maps.amax((2, 3))


class GeMPooling(nn.Module):
    """Generalised mean, (mean of x^p)^(1/p), with a learned p: 1 is the average, large ones near the maximum.

    Negative features count as zero. Source: Radenovic et al., "Fine-tuning CNN image retrieval with no human
    annotation", arXiv 1711.02512, eq. 3.

    Args:
        power: where p starts.
    """

    def __init__(self, power: float = 3.0) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(power))

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C"]:
        """Pool (B, C, H, W) maps to (B, C) vectors, in single precision whatever the input's."""
        power = self.power.float().clamp(1.0, 16.0)
        maps = maps.float().clamp_min(1e-6)
        # Dividing by the maximum keeps x^p inside the number range; the maximum comes back afterwards.
        largest = maps.detach().amax((2, 3), keepdim=True)
        return (maps / largest).pow(power).mean((2, 3)).pow(1 / power) * largest.flatten(1)


_POOLINGS: dict[str, type[nn.Module]] = {"avg": AveragePooling, "max": MaxPooling, "gem": GeMPooling}


def make_pooling(name: str) -> nn.Module:
    """The pooling called `avg`, `max` or `gem`.

    Raises:
        BadInputError: there is no pooling of that name.
    """
    if name not in _POOLINGS:
        raise BadInputError(f"pooling must be one of {', '.join(_POOLINGS)}, got {name!r}")
    return _POOLINGS[name]()
