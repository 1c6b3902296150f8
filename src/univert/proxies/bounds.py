"""How well proxies stand for points: the error eps, and bounds of losses on points by losses on proxies.

All rows are first made unit length; d is the squared Euclidean distance, and eps the largest d(x, p(x)). With it the
constant of both bounds is 4 sqrt(eps); the paper prints smaller ones, see `docs/proxies.md`. The tests hold a
counterexample to each of them.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from univert.core.errors import BadInputError
from univert.core.tensors import check_indices, squared_distances, unit_rows
from univert.proxies.bank import check_points
from univert.proxies.dynamic import nearest_proxies

Triplets = tuple[Integer[Tensor, "T"], Integer[Tensor, "T"], Integer[Tensor, "T"]]
"""Positions of anchors x, their positives y and negatives z."""


class Approximation:
    """Points beside the proxies that stand for them: of several assigned to a point the nearest, None: of all.

    Attributes:
        points: (N, D) unit rows.
        own: (N, D) unit rows, p(x) of each point.
        errors: (N,) d(x, p(x)).
        eps: their maximum, 0 without points.

    Raises:
        BadInputError: wrong shapes or dtypes, an assignment outside the proxies.

    Source: Movshovitz-Attias et al. (arXiv 1703.07464), eq. 5.
    """

    def __init__(
        self,
        embeddings: Float[Tensor, "N D"],
        proxies: Float[Tensor, "C D"],
        assigned: Integer[Tensor, "N"] | Integer[Tensor, "N M"] | None = None,
    ) -> None:
        check_points(embeddings)
        check_points(proxies, embeddings.shape[1], name="proxies")
        if assigned is None:
            assigned = nearest_proxies(embeddings, proxies)
        if assigned.is_floating_point() or assigned.ndim not in (1, 2) or len(assigned) != len(embeddings):
            found = f"{assigned.dtype} of shape {tuple(assigned.shape)}"
            raise BadInputError(f"assigned must hold integers, a row for each of {len(embeddings)} points, got {found}")
        check_indices(assigned, len(proxies), name="assigned")
        own_NM = assigned[:, None] if assigned.ndim == 1 else assigned
        self.points, choices_NMD = unit_rows(embeddings), unit_rows(proxies[own_NM])
        # the difference itself: squared_distances would lose what is nearly zero
        self.errors, best_N = (self.points[:, None] - choices_NMD).square().sum(2).min(1)
        self.own = choices_NMD[torch.arange(len(best_N), device=best_N.device), best_N]
        self.eps = self.errors.max() if len(embeddings) else self.errors.new_zeros(())

    def order_preserved(self, triplets: Triplets) -> Float[Tensor, ""]:
        """The share of triplets in whose order proxies and points agree: y nearer than z, z nearer, or a tie."""
        same = _gaps(self.points, self.points, triplets).sign() == _gaps(self.points, self.own, triplets).sign()
        return same.float().mean()


def label_triplets(labels: Integer[Tensor, "N"], *, limit: int = 4096, seed: int = 0) -> Triplets:
    """All triplets (x and y of one product, z of another) where they are few, else a uniform sample.

    For some thousand points at most. The sample is drawn with repetition, the same on every device.
    """
    negative_NN = labels[:, None] != labels
    negatives_first_NN = negative_NN.int().argsort(dim=1, descending=True, stable=True)
    negatives_N = negative_NN.sum(1)
    x_P, y_P = (~negative_NN).fill_diagonal_(False).nonzero(as_tuple=True)
    until_P = negatives_N[x_P].cumsum(0)  # triplets up to and including each pair
    total = int(until_P[-1]) if len(until_P) else 0
    number_T = torch.arange(total)
    if total > limit:
        number_T = torch.randint(total, (limit,), generator=torch.Generator().manual_seed(seed))
    number_T = number_T.to(labels.device)
    pair_T = torch.searchsorted(until_P, number_T, right=True)
    x_T = x_P[pair_T]
    return x_T, y_P[pair_T], negatives_first_NN[x_T, number_T - until_P[pair_T] + negatives_N[x_T]]


def triplet_bound(
    a: Approximation, triplets: Triplets, *, margin: float, norms: float = 1.0
) -> tuple[Float[Tensor, "T"], Float[Tensor, "T"]]:
    """The triplet loss of unit points, and its bound by that of points and proxies of constant lengths N_x and N_p.

    L(x,y,z) <= alpha L(x,p(y),p(z)) + (1 - alpha) M + 4 sqrt(eps), with alpha = 1 / (N_p N_x). For alpha > 1,
    (1 - alpha) M is dropped, with which it holds, too. `norms` is N_p N_x: s of a loss that scales distances by s.
    Source: the proxies paper, eq. 3, 7 and the bound with constant norms, corrected as above.
    """
    loss = (_gaps(a.points, a.points, triplets) + margin).clamp_min(0)
    on_proxies = (norms * _gaps(a.points, a.own, triplets) + margin).clamp_min(0) / norms
    return loss, on_proxies + max(0.0, 1 - 1 / norms) * margin + 4 * a.eps.sqrt()


def nca_bound(
    a: Approximation, triplets: Triplets, negative: Bool[Tensor, "N N"], *, norms: float = 1.0
) -> tuple[Float[Tensor, "T"], Float[Tensor, "T"]]:
    """The NCA loss of unit points, Z all negatives of x, and its bound by that of points and proxies.

    L(x,y,Z) <= alpha L(x,p(y),p(Z)) + (1 - alpha) log |Z| + 4 sqrt(eps), with alpha = 1 / (N_p N_x) and a term
    in p(Z) for each z, so proxies count as often as they stand for a z. The step from exponents alpha u to u
    is a Hoelder inequality that needs alpha <= 1; for alpha > 1, (1 - alpha) log |Z| is dropped.

    `negative` says which points (columns) are negatives of which (rows); at least one for each x.
    Source: the proxies paper, eq. 4, 7, 9-14 and the bound with constant norms, corrected as above.
    """
    x, y, _ = triplets

    def log_sum(rows: Tensor, scale: float) -> Tensor:
        logits_NN = -scale * squared_distances(a.points, rows)
        return logits_NN.masked_fill_(~negative, -torch.inf).logsumexp(1) / scale

    spread_N = max(0.0, 1 - 1 / norms) * negative.sum(1).clamp_min(1).log()
    loss = _distances(a.points, a.points, x, y) + log_sum(a.points, 1.0)[x]
    return loss, _distances(a.points, a.own, x, y) + (spread_N + log_sum(a.own, norms))[x] + 4 * a.eps.sqrt()


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
    """What to log of the proxies while training. Hand it at most some thousand points.

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
        `eps_max`, `eps_mean`: the approximation error, worst and mean; `order_preserved`: the share of triplets;
        `nca_tightness`, `triplet_tightness`: bound minus loss, mean over triplets. Without any triplet, eps alone.

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
        if len(chosen[0]):
            values["order_preserved"] = a.order_preserved(chosen)
            loss, bound = nca_bound(a, chosen, labels[:, None] != labels, norms=scale)
            values["nca_tightness"] = (bound - loss).mean()
            loss, bound = triplet_bound(a, chosen, margin=margin, norms=scale)
            values["triplet_tightness"] = (bound - loss).mean()
        return {name: value.item() for name, value in values.items()}


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
    products, members = labels.tolist(), dict[int, list[int]]()
    for position in torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).tolist():
        if products[position] >= 0:
            members.setdefault(products[position], []).append(position)
    whole_first = sorted(members.values(), key=lambda positions: len(positions) < 2)
    chosen = [position for positions in whole_first for position in positions[:per_product]]
    return torch.tensor(sorted(chosen[:limit]), dtype=torch.long)


def _distances(left: Tensor, right: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Squared distances of pairs, from differences: what is equal is exactly as far."""
    return (left[rows] - right[columns]).square().sum(1)


def _gaps(left: Tensor, right: Tensor, triplets: Triplets) -> Tensor:
    """d(x,y) - d(x,z), with y and z taken from `right`."""
    x, y, z = triplets
    return _distances(left, right, x, y) - _distances(left, right, x, z)
