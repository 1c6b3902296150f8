"""The proxy bank: a matrix of proxies learned together with the network (Proxies, Algorithm 1)."""

from __future__ import annotations

import torch
from torch import nn

from univert.core.errors import BadInputError


class ProxyBank(nn.Module):
    """Learned points that stand for products, one row each.

    Rows start as random directions of unit length. They are free to grow; losses that need unit
    vectors normalise them, which leaves a row's length as a learning-rate of its own.

    Args:
        count: number of proxies.
        size: D, the size of the embeddings they are compared with.
        seed: of the random start; null draws from torch's global generator.

    Attributes:
        proxies: the (count, size) float32 parameter.

    Raises:
        BadInputError: a count or size below 1.
    """

    def __init__(self, count: int, size: int, *, seed: int | None = None) -> None:
        super().__init__()
        if count < 1 or size < 1:
            raise BadInputError(f"a proxy bank needs count >= 1 and size >= 1, got {count} and {size}")
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        start = torch.randn(count, size, generator=generator)
        self.proxies = nn.Parameter(nn.functional.normalize(start, dim=1))
