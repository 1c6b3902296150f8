"""How well proxies stand for points: the error eps, and bounds of losses on points by losses on proxies.

Everything here is on the unit sphere (rows are made unit length), with d the squared Euclidean distance and
eps the largest d(x, p(x)), unless said otherwise. Three inequalities of the proxies paper (arXiv 1703.07464) need
care, and hold here in these forms:

* eq. 6, |{d(x,y) - d(x,z)} - {d(x,p(y)) - d(x,p(z))}| <= 2 eps, needs the triangle inequality, which squared
  distances lack. It holds for *plain* distances, with the root of eps: <= 2 sqrt(eps). Squared distances of
  unit vectors differ by at most 4 sqrt(eps).
* NCA: the constant is 4 sqrt(eps). The printed 2 sqrt(2 eps) is the same where d is *half* the squared distance
  (1 - cos), and too small where it is the squared distance: the proof doubles each of eq. 10 and 11.
* triplet: likewise 4 sqrt(eps), where 2 sqrt(eps) is printed.

Since |x| |z - p(z)| <= sqrt(eps) (Cauchy, eq. 9) is reached, none of the three can be less; the tests show a
counterexample to each printed form.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from univert.core.errors import BadInputError
from univert.core.tensors import squared_distances
from univert.proxies.approximation import Approximation, TripletDistances, label_triplets


@dataclass(frozen=True)
class Bound:
    """An inequality left <= right, for each of T triplets.

    Attributes:
        left: the loss on the points.
        right: its bound by the loss on the proxies, with the worst error eps.
        actual: the same bound with the errors of the very points of the triplet; left <= actual <= right.
    """

    left: Float[Tensor, "T"]
    right: Float[Tensor, "T"]
    actual: Float[Tensor, "T"]


def ranking_bound(distances: TripletDistances) -> Bound:
    """The ranking loss H(d(x,y) - d(x,z)) by that on proxies, plus 1 where proxies are too close to call.

    Means over the triplets give the paper's E[L] <= E[L on proxies] + Pr[|d(x,p(y)) - d(x,p(z))| <= 2 eps],
    with d the plain distance and the root of eps (see above). H(0) is 1: a tie is a fault.

    Source: the proxies paper, eq. 2 and the inequality after eq. 6.
    """
    left = (_gap(distances) >= 0).float()
    gap = _gap_on_proxies(distances, squared=False)
    fault = (gap >= 0).float()
    # a hair of tolerance: where the gap equals the error exactly, rounding must not decide
    unsure = gap.abs() <= 2 * distances.approximation.eps.sqrt() + 1e-6
    unsure_here = gap.abs() <= distances.errors + 1e-6
    return Bound(left, fault + unsure, fault + unsure_here)


def triplet_bound(distances: TripletDistances, *, margin: float, norms: float = 1.0) -> Bound:
    """The triplet loss of unit points by that of points and proxies of constant lengths N_x and N_p.

    L(x,y,z) <= alpha L(x,p(y),p(z)) + (1 - alpha) M + 4 sqrt(eps), with alpha = 1 / (N_p N_x). The printed
    form needs alpha <= 1; for alpha > 1, (1 - alpha) M is dropped, with which it holds, too.

    Args:
        distances: of the triplets.
        margin: M, in units of squared distance.
        norms: N_p N_x; a loss that multiplies squared distances of unit rows by s has s.

    Raises:
        BadInputError: norms that are not positive, a negative margin.

    Source: the proxies paper, eq. 3, 7 and the bound with constant norms, corrected as above.
    """
    _check_positive(norms, margin)
    left = (_gap(distances) + margin).clamp_min(0)
    on_proxies = (norms * _gap_on_proxies(distances) + margin).clamp_min(0)
    return _bound(left, on_proxies / norms + max(0.0, 1 - 1 / norms) * margin, 2, distances)


def nca_bound(distances: TripletDistances, negative: Bool[Tensor, "N N"], *, norms: float = 1.0) -> Bound:
    """The NCA loss of unit points, Z all negatives of x, by that of points and proxies of constant lengths.

    L(x,y,Z) <= alpha L(x,p(y),p(Z)) + (1 - alpha) log |Z| + 4 sqrt(eps), with alpha = 1 / (N_p N_x) and a term
    in p(Z) for each z, so proxies count as often as they stand for a z. The step from exponents alpha u to u
    is a Hoelder inequality that needs alpha <= 1; for alpha > 1, (1 - alpha) log |Z| is dropped.

    `actual` takes each z with its own error; it is the bound before the worst error replaces all.

    Args:
        distances: of triplets, whose x and y are used.
        negative: which points (columns) are negatives of which (rows); at least one for each x.
        norms: N_p N_x; a loss that multiplies squared distances of unit rows by s has s.

    Raises:
        BadInputError: norms that are not positive, a matrix of another shape.

    Source: the proxies paper, eq. 4, 7, 9-14 and the bound with constant norms, corrected as above.
    """
    _check_positive(norms)
    a, (x, y, _) = distances.approximation, distances.triplets
    size = len(a.points)
    if negative.shape != (size, size) or negative.dtype is not torch.bool:
        found = f"{negative.dtype} of shape {tuple(negative.shape)}"
        raise BadInputError(f"negative must be a bool matrix of shape {(size, size)}, got {found}")
    roots_N = a.errors.sqrt()
    own_NN = squared_distances(a.points, a.own).neg_()
    on_points = _log_sum(squared_distances(a.points, a.points).neg_(), negative)
    on_proxies = _log_sum(own_NN * norms, negative) / norms
    actual = _log_sum(own_NN.add_(2 * roots_N).mul_(norms), negative) / norms
    spread_N = max(0.0, 1 - 1 / norms) * negative.sum(1).clamp_min(1).log()  # (1 - alpha) log |Z|
    common = distances.to_own_y + spread_N[x]
    return Bound(
        distances.to_y + on_points[x], common + on_proxies[x] + 4 * a.eps.sqrt(), common + actual[x] + 2 * roots_N[y]
    )


def measure_bounds(
    embeddings: Float[Tensor, "N D"],
    labels: Integer[Tensor, "N"],
    proxies: Float[Tensor, "C D"],
    assigned: Integer[Tensor, "N"] | Integer[Tensor, "N M"] | None,
    *,
    margin: float = 0.2,
    scale: float = 9.0,
    triplets: int = 4096,
    seed: int = 0,
) -> dict[str, float]:
    """All that this module measures, in numbers to log while training. Hand it at most some thousand points.

    Args:
        embeddings: one row a point; always the same points, so that values can be compared (`monitor_points`).
        labels: the product of each.
        proxies: one row a proxy.
        assigned: the proxy or proxies of each; None takes the nearest (dynamic assignment).
        margin: of the triplet loss.
        scale: s of the Proxy-NCA that is trained: N_p N_x, so alpha = 1/s.
        triplets: how many to sample.
        seed: of the sample.

    Returns:
        `eps_max`, `eps_mean`: the approximation error, worst and mean. `order_preserved`: the share of triplets.
        For `ranking`, `nca` and `triplet`, means over the triplets: `_loss` on points, `_bound` by proxies,
        `_tightness` = bound - loss, and `_slack`, the same with each point's own error rather than the worst.
        Without any triplet, eps alone.

    Raises:
        BadInputError: labels that are not as many as the embeddings, and what `Approximation` refuses.

    Example:
        >>> import torch
        >>> points, labels = torch.eye(4)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1])
        >>> found = measure_bounds(points, labels, torch.eye(4)[:2], labels)
        >>> found["order_preserved"], found["nca_tightness"]
        (1.0, 0.0)
    """
    if labels.shape != (len(embeddings),):
        found = f"{tuple(labels.shape)} against {len(embeddings)}"
        raise BadInputError(f"labels must be a vector as long as the embeddings, got {found}")
    with torch.no_grad(), torch.autocast(embeddings.device.type, enabled=False):
        a = Approximation(embeddings, proxies, assigned)
        values = {"eps_max": a.eps, "eps_mean": a.errors.sum() / max(len(a.errors), 1)}
        chosen = label_triplets(labels, limit=triplets, seed=seed)
        if len(chosen.x):
            distances = TripletDistances(a, chosen)
            values["order_preserved"] = distances.order_preserved()
            negative = labels[:, None] != labels
            for name, bound in (
                ("ranking", ranking_bound(distances)),
                ("nca", nca_bound(distances, negative, norms=scale)),
                ("triplet", triplet_bound(distances, margin=margin, norms=scale)),
            ):
                values[f"{name}_loss"] = bound.left.mean()
                values[f"{name}_bound"] = bound.right.mean()
                values[f"{name}_tightness"] = (bound.right - bound.left).mean()
                values[f"{name}_slack"] = (bound.actual - bound.left).mean()
        numbers = torch.stack([value.float() for value in values.values()]).tolist()  # one wait for the device
    return dict(zip(values, numbers, strict=True))


def monitor_points(
    labels: Integer[Tensor, "N"], *, limit: int = 1024, per_product: int = 8, seed: int = 0
) -> Integer[Tensor, "K"]:
    """Positions of points to measure bounds on: up to `per_product` of each of a random choice of products.

    Args:
        labels: the product of each point of the training split; -1 leaves a point out.
        limit: how many points at most.
        per_product: how many of a product at most; products with one point come last.
        seed: of the choice.

    Returns:
        positions in rising order, on the CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = labels.cpu()
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order] >= 0]
    _, product, sizes = labels[order].unique(return_inverse=True, return_counts=True)
    turn = torch.randperm(len(sizes), generator=generator) + len(sizes) * (sizes < 2)
    by_turn = turn[product].argsort(stable=True)  # whole products, one after the other
    order, product = order[by_turn], product[by_turn]
    starts = torch.cat([product.new_ones(1), product.diff().ne(0).long()])[: len(product)].nonzero().squeeze(1)
    lengths = torch.cat([starts, starts.new_tensor([len(product)])]).diff()
    rank = torch.arange(len(product)) - starts.repeat_interleave(lengths)
    return order[rank < per_product][:limit].sort().values


def _gap(distances: TripletDistances, *, squared: bool = True) -> Tensor:
    """d(x,y) - d(x,z)."""
    y, z = distances.to_y, distances.to_z
    return y - z if squared else y.sqrt() - z.sqrt()


def _gap_on_proxies(distances: TripletDistances, *, squared: bool = True) -> Tensor:
    """d(x,p(y)) - d(x,p(z))."""
    y, z = distances.to_own_y, distances.to_own_z
    return y - z if squared else y.sqrt() - z.sqrt()


def _bound(left: Tensor, on_proxies: Tensor, factor: int, distances: TripletDistances) -> Bound:
    """With the errors of y and z added, each its root times `factor`, or the worst for both."""
    worst = 2 * distances.approximation.eps.sqrt()
    return Bound(left, on_proxies + factor * worst, on_proxies + factor * distances.errors)


def _log_sum(logits_NN: Tensor, counted_NN: Tensor) -> Tensor:
    """Log of the sum of exp over what counts; overwrites the logits."""
    return logits_NN.masked_fill_(~counted_NN, -torch.inf).logsumexp(1)


def _check_positive(norms: float, margin: float = 0.0) -> None:
    if not 0 < norms < float("inf"):
        raise BadInputError(f"norms (N_p N_x, or the scale of a loss on unit rows) must be positive, got {norms}")
    if margin < 0:
        raise BadInputError(f"margin must not be negative, got {margin}")
