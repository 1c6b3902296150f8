"""The bounds as the proxies paper writes them: loops over triplets, float64, vectors of the stated lengths."""

import math
from typing import NamedTuple

import torch
from torch import Tensor


def unit(x: Tensor) -> Tensor:
    return x.double() / x.double().norm(dim=1, keepdim=True)


def d(x: Tensor, y: Tensor) -> float:
    return float((x - y).square().sum())


def all_triplets(labels: list[int]) -> list[tuple[int, int, int]]:
    n = range(len(labels))
    return [(x, y, z) for x in n for y in n for z in n if x != y and labels[x] == labels[y] and labels[x] != labels[z]]


def nca(x: Tensor, y: Tensor, negatives: list[Tensor]) -> float:
    """Eq. 4."""
    return d(x, y) + float(torch.logsumexp(torch.tensor([-d(x, z) for z in negatives]).double(), 0))


def triplet(x: Tensor, y: Tensor, z: Tensor, margin: float) -> float:
    """Eq. 3."""
    return max(0.0, d(x, y) + margin - d(x, z))


class Sides(NamedTuple):
    """Left and right of the inequalities for one triplet, in the corrected form."""

    eps: float
    order_preserved: bool
    nca: tuple[float, float]
    triplet: tuple[float, float]


def sides(
    points: Tensor,
    labels: list[int],
    proxies: Tensor,
    assigned: list[int],
    chosen: tuple[int, int, int],
    margin: float,
    point_length: float,
    proxy_length: float,
) -> Sides:
    """`point_length` and `proxy_length` are N_x and N_p."""
    points, own = unit(points), unit(proxies)[assigned]
    long_points, long_own = points * point_length, own * proxy_length
    x, y, z = chosen
    alpha = 1 / (point_length * proxy_length)
    eps = max(d(p, q) for p, q in zip(points, own, strict=True))
    others = [i for i, label in enumerate(labels) if label != labels[x]]
    gap = d(points[x], points[y]) - d(points[x], points[z])
    proxy_gap = d(points[x], own[y]) - d(points[x], own[z])
    rest, error = max(0.0, 1 - alpha), 4 * eps**0.5
    nca_on_proxies = alpha * nca(long_points[x], long_own[y], [long_own[i] for i in others])
    triplet_on_proxies = alpha * triplet(long_points[x], long_own[y], long_own[z], margin)
    return Sides(
        eps,
        (gap > 0) == (proxy_gap > 0) and (gap < 0) == (proxy_gap < 0),
        (nca(points[x], points[y], [points[i] for i in others]), nca_on_proxies + rest * math.log(len(others)) + error),
        (triplet(points[x], points[y], points[z], margin), triplet_on_proxies + rest * margin + error),
    )
