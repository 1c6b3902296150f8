"""Points beside the proxies that stand for them: the error eps (the proxies paper, eq. 5), and whose order survives."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from univert.core.errors import BadInputError
from univert.core.tensors import check_indices, unit_rows
from univert.proxies.bank import check_points
from univert.proxies.dynamic import nearest_proxies

_NUMBERS_AT_ONCE = 1 << 16  # small enough for a processor's cache, where twice the speed is


class Triplets(NamedTuple):
    """Positions of anchors x, their positives y and negatives z, one triplet an entry."""

    x: Integer[Tensor, "T"]
    y: Integer[Tensor, "T"]
    z: Integer[Tensor, "T"]


class Approximation:
    """Points beside the proxies that stand for them, on the unit sphere.

    Args:
        embeddings: one row a point.
        proxies: one row a proxy.
        assigned: the proxy of each point; of several (N x M, as a `StaticAssignment` gives) the nearest
            counts; None takes the nearest of all.

    Attributes:
        points: (N, D) unit rows.
        own: (N, D) unit rows, p(x) of each point.
        errors: (N,) d(x, p(x)).
        eps: their maximum, 0 without points.

    Raises:
        BadInputError: wrong shapes or dtypes, an assignment outside the proxies.

    Source: Movshovitz-Attias et al. (arXiv 1703.07464), eq. 5.

    Example:
        >>> import torch
        >>> Approximation(torch.tensor([[0.6, 0.8], [1.0, 0.0]]), torch.eye(2)).errors
        tensor([0.4000, 0.0000])
    """

    def __init__(
        self,
        embeddings: Float[Tensor, "N D"],
        proxies: Float[Tensor, "C D"],
        assigned: Integer[Tensor, "N"] | Integer[Tensor, "N M"] | None = None,
    ) -> None:
        check_points(embeddings)
        check_points(proxies, embeddings.shape[1], name="proxies")
        embeddings, proxies = embeddings.detach(), proxies.detach()
        if assigned is None:
            assigned = nearest_proxies(embeddings, proxies)
        _check_assigned(assigned, len(embeddings), len(proxies))
        self.points = unit_rows(embeddings)
        own_NM = assigned.view(len(embeddings), 1 if assigned.ndim == 1 else assigned.shape[1])
        choices_NMD = unit_rows(proxies[own_NM.flatten()]).view(*own_NM.shape, proxies.shape[1])
        # the difference itself: squared_distances would lose what is nearly zero
        errors_NM = (self.points[:, None] - choices_NMD).square().sum(2)
        self.errors, best_N = errors_NM.min(1)
        self.own = choices_NMD[torch.arange(len(embeddings), device=best_N.device), best_N]
        self.eps = self.errors.max() if len(embeddings) else self.errors.new_zeros(())


def label_triplets(labels: Integer[Tensor, "N"], *, limit: int = 4096, seed: int = 0) -> Triplets:
    """All triplets (x and y of one product, z of another) where they are few, else a uniform sample.

    Args:
        labels: the product of each point.
        limit: how many at most.
        seed: of the sample, drawn with repetition; the same on every device.

    Returns:
        positions; none where no product has two points, or there is but one product.
    """
    order = labels.argsort(stable=True)
    sizes = labels[order].unique_consecutive(return_counts=True)[1]
    size_N = sizes.repeat_interleave(sizes)  # of the product of each point, in sorted order
    first_N = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    other_N = len(labels) - size_N
    until_N = ((size_N - 1) * other_N).cumsum(0)  # triplets up to and including each anchor
    total = int(until_N[-1]) if len(labels) else 0
    if total <= limit:
        number = torch.arange(total)
    else:
        number = torch.randint(total, (limit,), generator=torch.Generator().manual_seed(seed))
    number = number.to(labels.device)
    x = torch.searchsorted(until_N, number, right=True)
    before = until_N[x] - (size_N[x] - 1) * other_N[x]
    rank_y = (number - before) // other_N[x]
    rank_z = (number - before) % other_N[x]
    y = first_N[x] + rank_y
    y = y + (y >= x)  # the anchor is no positive of itself
    z = rank_z + size_N[x] * (rank_z >= first_N[x])
    return Triplets(order[x], order[y], order[z])


class TripletDistances:
    """Squared distances within triplets, on the points and on the proxies of y and z.

    Args:
        approximation: points and their proxies.
        triplets: positions among the points.

    Attributes:
        to_y: (T,) d(x, y).
        to_z: (T,) d(x, z).
        to_own_y: (T,) d(x, p(y)).
        to_own_z: (T,) d(x, p(z)).
        errors: (T,) sqrt(d(y, p(y))) + sqrt(d(z, p(z))), the plain distances by which the proxies are off.
    """

    def __init__(self, approximation: Approximation, triplets: Triplets) -> None:
        self.approximation, self.triplets = approximation, triplets
        (x, y, z), points, own = triplets, approximation.points, approximation.own
        self.to_y, self.to_z = _distances(points, points, x, y), _distances(points, points, x, z)
        self.to_own_y, self.to_own_z = _distances(points, own, x, y), _distances(points, own, x, z)
        self.errors = approximation.errors[y].sqrt() + approximation.errors[z].sqrt()

    def order_preserved(self) -> Float[Tensor, ""]:
        """The share of triplets in whose order proxies and points agree: y nearer than z, z nearer, or a tie.

        y and z with one proxy tie there, so they usually count as not preserved. 1 without triplets.
        """
        same = (self.to_y - self.to_z).sign() == (self.to_own_y - self.to_own_z).sign()
        return same.float().sum() / len(same) if len(same) else self.to_y.new_ones(())


def _distances(left: Tensor, right: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Squared distances of pairs, from differences: what is equal is exactly as far."""
    at_once = max(1, _NUMBERS_AT_ONCE // left.shape[1])
    pairs = zip(rows.split(at_once), columns.split(at_once), strict=True)
    return torch.cat([(left[i] - right[j]).square_().sum(1) for i, j in pairs])


def _check_assigned(assigned: Tensor, points: int, proxies: int) -> None:
    integers = assigned.dtype in (torch.int16, torch.int32, torch.int64)
    shaped = assigned.ndim in (1, 2) and len(assigned) == points and assigned.shape[1:] != (0,)
    if not integers or not shaped:
        found = f"{assigned.dtype} of shape {tuple(assigned.shape)}"
        raise BadInputError(f"assigned must hold integers, a row for each of {points} points, got {found}")
    check_indices(assigned, proxies, name="assigned")
