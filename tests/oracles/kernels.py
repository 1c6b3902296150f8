"""The soft-max losses over proxies as they read: loops, float64, no cleverness. `own[i]` lists image i's proxies."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(x: Tensor) -> Tensor:
    length = x.norm()
    return x / length if length > 0 else x


def share(logits: Tensor, own: list[int], form: str, pooling: str, smoothing: float) -> Tensor:
    """-log of the own proxies' part of the sum, for one image."""
    mine = [logits[i] for i in sorted(set(own))]
    others = [logits[i] for i in range(len(logits)) if form == "softmax" or i not in own]
    pooled = torch.logsumexp(torch.stack(mine), 0) if pooling == "soft" else max(mine)
    target = (1 - smoothing) * pooled + smoothing * logits.mean()
    return torch.logsumexp(torch.stack(others), 0) - target


def proxy_nca(
    embeddings: Tensor,
    proxies: Tensor,
    own: list[list[int]],
    scale: float = 9.0,
    form: str = "softmax",
    pooling: str = "soft",
    smoothing: float = 0.0,
    unit_norm: bool = True,
) -> Tensor:
    total = (embeddings.double().sum() + proxies.double().sum()) * 0
    for x, mine in zip(embeddings.double(), own, strict=True):
        pairs = [(unit(x), unit(p)) if unit_norm else (x, p) for p in proxies.double()]
        logits = torch.stack([-scale * (a - b).square().sum() for a, b in pairs])
        total = total + share(logits, mine, form, pooling, smoothing)
    return total / max(len(embeddings), 1)


def normalized_softmax(embeddings: Tensor, proxies: Tensor, own: list[list[int]], temperature: float = 0.05) -> Tensor:
    total = embeddings.double().sum() * 0
    for x, mine in zip(embeddings.double(), own, strict=True):
        logits = torch.stack([(unit(x) * unit(p)).sum() / temperature for p in proxies.double()])
        total = total + share(logits, mine, "softmax", "soft", 0.0)
    return total / max(len(embeddings), 1)


def softmax(embeddings: Tensor, weights: Tensor, bias: Tensor, own: list[list[int]], smoothing: float = 0.0) -> Tensor:
    total = embeddings.double().sum() * 0
    for x, mine in zip(embeddings.double(), own, strict=True):
        logits = torch.stack([(x * w).sum() + b for w, b in zip(weights.double(), bias.double(), strict=True)])
        total = total + share(logits, mine, "softmax", "soft", smoothing)
    return total / max(len(embeddings), 1)
