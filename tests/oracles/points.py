"""Losses on data points as their formulas read: loops, float64, no cleverness."""

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

TIE = 1e-9


def distance(x: Tensor, i: int, j: int, *, plain: bool = False) -> Tensor:
    square = (x[i] - x[j]).square().sum()
    if not plain:
        return square
    return square.sqrt() if square > 0 else square


def positives(labels: Tensor, i: int) -> list[int]:
    return [j for j in range(len(labels)) if j != i and labels[j] == labels[i]]


def negatives(labels: Tensor, i: int, verticals: Tensor | None = None) -> list[int]:
    return [
        j for j in range(len(labels)) if labels[j] != labels[i] and (verticals is None or verticals[j] == verticals[i])
    ]


def triplet_margin(
    embeddings: Tensor,
    labels: Tensor,
    margin: float,
    *,
    mining: str = "semi-hard",
    plain: bool = False,
    verticals: Tensor | None = None,
) -> Tensor:
    x = embeddings.double()
    losses = []
    for a in range(len(x)):
        near = [distance(x, a, p, plain=plain) for p in positives(labels, a)]
        far = [distance(x, a, n, plain=plain) for n in negatives(labels, a, verticals)]
        if mining == "hard" and near and far:
            near, far = [max(near)], [min(far)]
        losses += [
            margin + positive - negative
            for positive in near
            for negative in far
            if (mining != "semi-hard" or positive < negative) and negative < positive + margin
        ]
    return torch.stack(losses).mean() if losses else x.sum() * 0


def nca(embeddings: Tensor, labels: Tensor, scale: float, form: str) -> Tensor:
    x = embeddings.double()
    losses = []
    for i in range(len(x)):
        near = [-scale * distance(x, i, j) for j in positives(labels, i)]
        far = [-scale * distance(x, i, j) for j in negatives(labels, i)]
        if form == "softmax" and near:
            losses.append(torch.logsumexp(torch.stack(near + far), 0) - torch.logsumexp(torch.stack(near), 0))
        if form == "paper" and far:
            losses += [torch.logsumexp(torch.stack(far), 0) - logit for logit in near]
    return torch.stack(losses).mean() if losses else x.sum() * 0


def lifted_structure(embeddings: Tensor, labels: Tensor, neg_margin: float, pos_margin: float, scale: float) -> Tensor:
    x = embeddings.double()
    total, pairs = x.sum() * 0, 0
    for i in range(len(x)):
        for j in positives(labels, i):
            if j < i:
                continue
            pairs += 1
            ends = [(i, k) for k in negatives(labels, i)] + [(j, k) for k in negatives(labels, j)]
            if ends:
                costs = [scale * (neg_margin - distance(x, *end, plain=True)) for end in ends]
                smooth = torch.logsumexp(torch.stack(costs), 0) / scale
                cost = smooth + distance(x, i, j, plain=True) - pos_margin
                total = total + torch.clamp(cost, min=0).square()
    return total / max(2 * pairs, 1)


def n_pairs(embeddings: Tensor, labels: Tensor, l2_reg_weight: float, pairs: str, scale: float) -> Tensor:
    x = embeddings.double()
    first_two = [[int(i) for i in (labels == y).nonzero()[:2]] for y in labels.unique()]
    chosen = [pair for pair in first_two if len(pair) == 2]
    if pairs == "all":
        terms = [(a, p, negatives(labels, a)) for a in range(len(x)) for p in positives(labels, a)]
    else:
        terms = [(a, p, [q for _, q in chosen if q != p]) for a, p in chosen]
    total = x.sum() * 0
    for a, p, others in terms:
        gaps = [scale * (x[a] @ x[n] - x[a] @ x[p]) for n in others]
        total = total + torch.logsumexp(torch.stack([x.new_zeros(()), *gaps]), 0)
    return total / max(len(terms), 1) + l2_reg_weight * x.square().sum() / max(len(x), 1)


def geometric_nmi(one: Sequence[int], other: Sequence[int]) -> float:
    """Mutual information over the geometric mean of the entropies; 1 between two constants."""
    n = len(one)

    def entropy(counts: Counter[int]) -> float:
        return -sum(c / n * math.log(c / n) for c in counts.values())

    p, q, pq = Counter(one), Counter(other), Counter(zip(one, other, strict=True))
    information = sum(c / n * math.log(c * n / (p[a] * q[b])) for (a, b), c in pq.items())
    if len(p) == 1 or len(q) == 1:
        return float(len(p) == len(q))
    return information / math.sqrt(entropy(p) * entropy(q))


def nearest_medoids(x: Tensor, medoids: Sequence[int]) -> list[int]:
    x = x.detach()
    return [min(medoids, key=lambda j, i=i: float(distance(x, i, j, plain=True))) for i in range(len(x))]


def medoids_score(x: Tensor, products: list[int], medoids: Sequence[int], gamma: float) -> float:
    """What the maximum of the structured clustering loss runs over, for one choice of medoids."""
    nearest = nearest_medoids(x, medoids)
    reach = sum(float(distance(x, i, j, plain=True)) for i, j in enumerate(nearest))
    return -reach / len(x) + gamma * (1 - geometric_nmi(nearest, products))


def searched_medoids(x: Tensor, products: list[int], gamma: float) -> list[int]:
    """Greedy, then the best swap of a medoid for a member of its cluster until none helps."""
    rows, count = range(len(x)), len(set(products))
    spread = [sum(float(distance(x, i, j, plain=True)) for j in rows) for i in rows]

    def best_of(options: list[tuple[list[int], int]]) -> tuple[list[int], float]:
        scores = [medoids_score(x, products, medoids, gamma) * len(x) for medoids, _ in options]
        best = max(scores)
        equals = [
            i for i, score in zip(range(len(options)), scores, strict=True) if score >= best - TIE * (1 + abs(best))
        ]
        chosen = min(equals, key=lambda i: spread[options[i][1]])
        return options[chosen][0], scores[chosen]

    medoids: list[int] = []
    score = -math.inf
    for _ in range(count):
        medoids, score = best_of([([*medoids, c], c) for c in rows if c not in medoids])
    for _ in range(count):
        options = []
        for c in rows:
            place = min(range(count), key=lambda k: float(distance(x, c, medoids[k], plain=True)))
            options.append(([c if k == place else medoid for k, medoid in enumerate(medoids)], c))
        swapped, better = best_of(options)
        if not better > score + TIE * (1 + abs(score)):
            break
        medoids, score = swapped, better
    return medoids


def structured_clustering(embeddings: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """The loss with the medoids that the search finds."""
    x, products = embeddings.double(), labels.tolist()
    nearest = nearest_medoids(x, searched_medoids(x.detach(), products, gamma))
    reach = sum(distance(x, i, j, plain=True) for i, j in enumerate(nearest))
    own = x.sum() * 0
    for product in set(products):
        members = [i for i in range(len(x)) if products[i] == product]
        sums = [sum(distance(x, i, j, plain=True) for j in members) for i in members]
        own = own + min(sums)
    mixing = 1 - geometric_nmi(nearest, products)
    return torch.clamp((own - reach) / len(x) + gamma * mixing, min=0)


def target_l2(embeddings: Tensor, targets: Tensor) -> Tensor:
    rows = [(e - t).square().sum() for e, t in zip(embeddings.double(), targets.double(), strict=True)]
    return torch.stack(rows).mean() if rows else embeddings.double().sum() * 0
