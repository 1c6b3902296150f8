"""Losses with proxies as their papers print them: loops, float64, no cleverness. `own[i]` lists image i's proxies."""

import torch
from torch import Tensor


def unit(x: Tensor) -> Tensor:
    length = x.norm()
    return x / length if length > 0 else x


def share(logits: Tensor, own: list[int], form: str = "softmax", pooling: str = "soft", smoothing: float = 0) -> Tensor:
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
    scale: float = 4.0,
    form: str = "softmax",
    pooling: str = "soft",
    label_smoothing: float = 0.0,
) -> Tensor:
    total = (embeddings.double().sum() + proxies.double().sum()) * 0
    for x, mine in zip(embeddings.double(), own, strict=True):
        logits = torch.stack([-scale * (unit(x) - unit(p)).square().sum() for p in proxies.double()])
        total = total + share(logits, mine, form, pooling, label_smoothing)
    return total / max(len(embeddings), 1)


def normalized_softmax(embeddings: Tensor, proxies: Tensor, own: list[list[int]], temperature: float = 0.05) -> Tensor:
    total = (embeddings.double().sum() + proxies.double().sum()) * 0
    for x, mine in zip(embeddings.double(), own, strict=True):
        total = total + share(torch.stack([(unit(x) * unit(p)).sum() / temperature for p in proxies.double()]), mine)
    return total / max(len(embeddings), 1)


def softmax(
    embeddings: Tensor, weights: Tensor, own: list[list[int]], bias: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    total = (embeddings.double().sum() + weights.double().sum()) * 0
    for x, mine in zip(embeddings.double(), own, strict=True):
        logits = torch.stack([(x * w).sum() + b for w, b in zip(weights.double(), bias.double(), strict=True)])
        total = total + share(logits, mine, smoothing=label_smoothing)
    return total / max(len(embeddings), 1)


def proxy_triplet(embeddings: Tensor, proxies: Tensor, own: list[list[int]], margin: float, negatives: str) -> Tensor:
    total = (embeddings.double().sum() + proxies.double().sum()) * 0
    for x, mine in zip(embeddings.double(), own, strict=True):
        distances = [(unit(x) - unit(p)).square().sum() for p in proxies.double()]
        positive = min(distances[i] for i in mine)
        others = [d for i, d in enumerate(distances) if i not in mine]
        if negatives == "active":
            others = [d for d in others if positive + margin > d]
        if others:
            hinges = [torch.clamp(positive + margin - d, min=0) for d in others]
            total = total + torch.stack(hinges).mean()
    return total / max(len(embeddings), 1)


def proxy_n_pairs(
    embeddings: Tensor, proxies: Tensor, own: list[list[int]], scale: float, l2_reg_weight: float
) -> Tensor:
    total = (embeddings.double().sum() + proxies.double().sum()) * 0
    for x, mine in zip(embeddings.double(), own, strict=True):
        products = [scale * (x * p).sum() for p in proxies.double()]
        positive = torch.logsumexp(torch.stack([products[i] for i in mine]), 0)
        gaps = [p - positive for i, p in enumerate(products) if i not in mine]
        total = total + torch.logsumexp(torch.stack([positive * 0, *gaps]), 0)
        total = total + l2_reg_weight * (x * x).sum()
    return total / max(len(embeddings), 1)


def proxy_anchor(embeddings: Tensor, proxies: Tensor, own: list[list[int]], margin: float, alpha: float) -> Tensor:
    nothing = (embeddings.double().sum() + proxies.double().sum()) * 0
    pull, push, with_positives = nothing, nothing, 0
    for i, proxy in enumerate(proxies.double()):
        positives, negatives = [nothing], [nothing]
        for x, mine in zip(embeddings.double(), own, strict=True):
            cosine = (unit(x) * unit(proxy)).sum()
            if i in mine:
                positives.append(-alpha * (cosine - margin))
            else:
                negatives.append(alpha * (cosine + margin))
        with_positives += len(positives) > 1
        pull = pull + torch.logsumexp(torch.stack(positives), 0)
        push = push + torch.logsumexp(torch.stack(negatives), 0)
    return pull / max(with_positives, 1) + push / len(proxies)


def soft_triple(
    embeddings: Tensor, centers: Tensor, labels: Tensor, la: float, gamma: float, margin: float, tau: float
) -> Tensor:
    total = (embeddings.double().sum() + centers.double().sum()) * 0
    products, per_product = len(centers), len(centers[0])
    for x, label in zip(embeddings.double(), labels.tolist(), strict=True):
        logits = []
        for product, own in enumerate(centers.double()):
            cosines = torch.stack([(unit(x) * unit(w)).sum() for w in own])
            similarity = (torch.softmax(cosines / gamma, 0) * cosines).sum()
            logits.append(la * (similarity - margin * (product == label)))
        total = total + torch.logsumexp(torch.stack(logits), 0) - logits[label]
    total = total / max(len(embeddings), 1)
    if tau:
        for own in centers.double():
            for s in range(per_product):
                for t in range(s + 1, per_product):
                    apart = (unit(own[s]) - unit(own[t])).norm()
                    total = total + tau * apart / (products * per_product * (per_product - 1))
    return total
