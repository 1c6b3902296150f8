"""Mining by looking at every triple: loops, float64, no cleverness."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

Triple = tuple[int, int, int]


def triples(labels: Tensor, verticals: Tensor | None = None) -> Iterator[Triple]:
    """Every anchor, positive and negative of a batch."""
    for a in range(len(labels)):
        for p in range(len(labels)):
            for n in range(len(labels)):
                if p == a or labels[p] != labels[a] or labels[n] == labels[a]:
                    continue
                if verticals is None or verticals[n] == verticals[a]:
                    yield a, p, n


def distance(x: Tensor, i: int, j: int, *, plain: bool = False) -> float:
    squared = (x[i].double() - x[j].double()).square().sum().item()
    return math.sqrt(squared) if plain else squared


def semi_hard(
    x: Tensor,
    labels: Tensor,
    margin: float,
    per_pair: int | None,
    *,
    plain: bool = False,
    verticals: Tensor | None = None,
) -> set[Triple]:
    found: dict[tuple[int, int], list[tuple[float, int]]] = {}
    for a, p, n in triples(labels, verticals):
        near, far = distance(x, a, p, plain=plain), distance(x, a, n, plain=plain)
        if near < far < near + margin:
            found.setdefault((a, p), []).append((far, n))
    return {(a, p, n) for (a, p), negatives in found.items() for _, n in sorted(negatives)[:per_pair]}


def hardest(x: Tensor, labels: Tensor, verticals: Tensor | None = None) -> set[Triple]:
    best: dict[int, Triple] = {}
    for a, p, n in triples(labels, verticals):
        if a not in best or (distance(x, a, p), -distance(x, a, n)) > (
            distance(x, a, best[a][1]),
            -distance(x, a, best[a][2]),
        ):
            best[a] = (a, p, n)
    return set(best.values())


def hardest_loss(x: Tensor, labels: Tensor, margin: float) -> Tensor:
    x = x.double()
    losses = []
    for a, p, n in hardest(x.detach(), labels):
        loss = margin + (x[a] - x[p]).square().sum() - (x[a] - x[n]).square().sum()
        if loss > 0:
            losses.append(loss)
    return torch.stack(losses).mean() if losses else x.sum() * 0


def draw_probabilities(
    x: Tensor, labels: Tensor, anchor: int, cutoff: float, nonzero_loss_cutoff: float
) -> list[float]:
    """Wu et al., section 4: P(n | a) proportional to 1/q(max(cutoff, d)), for negatives below the other cut-off."""
    size = x.shape[1]
    weights = []
    for n in range(len(x)):
        d = max(cutoff, distance(x, anchor, n, plain=True))
        density = d ** (size - 2) * (1 - d * d / 4) ** ((size - 3) / 2)
        weights.append(1 / density if labels[n] != labels[anchor] and d < nonzero_loss_cutoff else 0.0)
    return [weight / sum(weights) for weight in weights]


def strong_negatives(
    vectors: np.ndarray,
    products: np.ndarray,
    verticals: np.ndarray,
    margin: float,
    k: int,
    same: Callable[[int, int], bool] = lambda i, j: False,
) -> dict[tuple[int, int], list[int]]:
    """The negatives of every pair over the whole set, without those of products that share a picture."""
    x = vectors.astype(np.float64)
    labelled = [i for i in range(len(x)) if products[i] >= 0]
    shared = {
        (products[i], products[j])
        for i in labelled
        for j in labelled
        if products[i] != products[j] and verticals[i] == verticals[j] and same(i, j)
    }
    found = {}
    for a in labelled:
        for p in labelled:
            if p == a or products[p] != products[a]:
                continue
            gap = ((x[a] - x[p]) ** 2).sum()
            window = []
            for n in labelled:
                far = ((x[a] - x[n]) ** 2).sum()
                is_negative = products[n] != products[a] and verticals[n] == verticals[a]
                is_negative = is_negative and (products[a], products[n]) not in shared
                if is_negative and gap < far < gap + margin:
                    window.append((far, n))
            if window:
                found[a, p] = [n for _, n in sorted(window)[:k]]
    return found
