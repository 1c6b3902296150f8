"""Losses written as their formulas read: loops, float64, no cleverness."""

from __future__ import annotations

import torch
from torch import Tensor


def triplet_margin(embeddings: Tensor, labels: Tensor, margin: float, verticals: Tensor | None) -> Tensor:
    x = embeddings.double()
    losses = []
    for a in range(len(x)):
        for p in range(len(x)):
            for n in range(len(x)):
                if p == a or labels[p] != labels[a] or labels[n] == labels[a]:
                    continue
                if verticals is not None and verticals[n] != verticals[a]:
                    continue
                positive, negative = (x[a] - x[p]).square().sum(), (x[a] - x[n]).square().sum()
                if positive < negative < positive + margin:
                    losses.append(torch.clamp(margin + positive - negative, min=0))
    return torch.stack(losses).mean() if losses else x.sum() * 0


def proxy_nca(embeddings: Tensor, proxies: Tensor, assigned: Tensor, scale: float, form: str) -> Tensor:
    losses = []
    for x, own in zip(embeddings.double(), assigned.tolist(), strict=True):
        x = x / x.norm()
        distances = [scale * (x - p / p.norm()).square().sum() for p in proxies.double()]
        below = [d for i, d in enumerate(distances) if form == "softmax" or i != own]
        losses.append(distances[own] + torch.logsumexp(-torch.stack(below), 0))
    return torch.stack(losses).mean()


def target_l2(embeddings: Tensor, targets: Tensor) -> Tensor:
    rows = [(e - t).square().sum() for e, t in zip(embeddings.double(), targets.double(), strict=True)]
    return torch.stack(rows).mean()
