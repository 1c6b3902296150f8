"""Dynamic Proxy-NCA as its formula reads: loops over pairs, float64."""

import torch
from torch import Tensor


def nearest(x: Tensor, proxies: Tensor) -> list[int]:
    """Index of the proxy nearest to each row; both of unit length already."""
    return [int((row - proxies).square().sum(1).argmin()) for row in x]


def unit(x: Tensor) -> Tensor:
    return x.double() / x.double().norm(dim=1, keepdim=True)


def dynamic_proxy_nca(
    anchors: Tensor, proxies: Tensor, assigned: list[int], similar: Tensor, dissimilar: Tensor, scale: float = 9.0
) -> Tensor:
    x, p = unit(anchors), unit(proxies)
    losses = []
    for a in range(len(x)):
        others = {assigned[e] for e in range(len(assigned)) if dissimilar[a, e]}
        for e in range(len(assigned)):
            below = sorted(others - {assigned[e]})
            if similar[a, e] and below:
                logits = -scale * (x[a] - p[[*below, assigned[e]]]).square().sum(1)
                losses.append(logits.logsumexp(0) + scale * (x[a] - p[assigned[e]]).square().sum())
    return torch.stack(losses).mean() if losses else (anchors.double().sum() + proxies.double().sum()) * 0


def by_labels(x: Tensor, proxies: Tensor, labels: Tensor, scale: float = 9.0) -> Tensor:
    same = labels[:, None] == labels
    similar = same & ~torch.eye(len(x), dtype=torch.bool)
    chosen = nearest(unit(x.detach()), unit(proxies.detach()))
    return dynamic_proxy_nca(x, proxies, chosen, similar, ~same, scale)


def triplets(anchors: Tensor, positives: Tensor, negatives: Tensor, proxies: Tensor, scale: float) -> Tensor:
    """Soft-max form over single triplets."""
    p = unit(proxies)
    losses = []
    own, other = nearest(unit(positives), p), nearest(unit(negatives), p)
    for x, y, z in zip(unit(anchors), own, other, strict=True):
        if y != z:
            gap = (x - p[y]).square().sum() - (x - p[z]).square().sum()
            losses.append(torch.nn.functional.softplus(scale * gap))
    return torch.stack(losses).mean() if losses else anchors.double().sum() * 0
