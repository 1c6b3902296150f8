"""What a loss has to bring along to join the property grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SIZE, PRODUCTS = 6, 4


@dataclass(frozen=True)
class Case:
    """A loss as a function of embeddings and labels alone, and its oracle in float64."""

    module: type[nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    oracle: Callable[[Tensor, Tensor], Tensor]


def proxies(count: int = PRODUCTS) -> Tensor:
    return torch.randn(count, SIZE, generator=torch.Generator().manual_seed(7)) * 2
