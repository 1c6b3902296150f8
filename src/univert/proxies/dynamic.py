"""Dynamic assignment: a point belongs to its nearest proxy, and no product labels are needed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.core.tensors import unit_rows
from univert.proxies.bank import ProxyBank, check_points, means_of_points

_ROWS_AT_ONCE = 1 << 9
_COLUMNS_AT_ONCE = 1 << 11  # 4 MB, which a CPU keeps mapped and cached; five times as fast as 16 times more
_COLUMNS_AT_ONCE_GPU = 1 << 16  # where launching many small kernels would cost more
_NOISE = 0.05  # length of the random part of a re-seeded proxy, beside a unit direction


@torch.no_grad()
def nearest_proxies(embeddings: Float[Tensor, "N D"], proxies: Float[Tensor, "C D"]) -> Integer[Tensor, "N"]:
    """The proxy p(x) nearest to each point, all rows first made unit length.

    Only blocks of distances exist at a time, whatever N and C. A zero row is at right angles to all others. No gradient
    flows through the choice.

    Raises:
        BadInputError: not two floating-point matrices of the same width, or no proxies.

    Source: Movshovitz-Attias et al. (arXiv 1703.07464), eq. 5.

    Example:
        >>> import torch
        >>> nearest_proxies(torch.tensor([[0.6, 0.8], [5.0, 1.0]]), torch.eye(2))
        tensor([1, 0])
    """
    check_points(embeddings)
    check_points(proxies, embeddings.shape[1], name="proxies")
    if not len(proxies):
        raise BadInputError("proxies must have at least one row, got none")
    columns = _COLUMNS_AT_ONCE if embeddings.device.type == "cpu" else _COLUMNS_AT_ONCE_GPU
    best_N = torch.full((len(embeddings),), -torch.inf, device=embeddings.device)
    chosen_N = torch.zeros(len(embeddings), dtype=torch.long, device=embeddings.device)
    with torch.autocast(embeddings.device.type, enabled=False):
        points = unit_rows(embeddings)
        for start in range(0, len(proxies), columns):
            block = unit_rows(proxies[start : start + columns]).T
            for first in range(0, len(points), _ROWS_AT_ONCE):
                rows = slice(first, first + _ROWS_AT_ONCE)
                # between unit rows the nearest is the one with the largest product; of equals the first
                product_B, column_B = (points[rows] @ block).max(1)
                nearer = product_B > best_N[rows]
                best_N[rows] = torch.where(nearer, product_B, best_N[rows])
                chosen_N[rows] = torch.where(nearer, column_B + start, chosen_N[rows])
    return chosen_N


class Refresh(NamedTuple):
    """What a full re-assignment found."""

    moved: int
    """Points whose proxy changed, those assigned for the first time included."""
    dead: int
    """Proxies without a point."""


class DynamicAssignment(nn.Module):
    """Remembers the proxy of every training point between re-assignments; saved with `state_dict`.

    Use: `refresh` every N steps with the embeddings of all points, then `reseed` the proxies that no point chose.

    Args:
        points: number of training points; a point is known by its position, 0..points-1.
        proxies: number of proxies.

    Attributes:
        nearest: (points,) int64, the proxy of each point; -1 where it has none yet.
        refreshes: how many full re-assignments there were (it varies the seed of `reseed`).

    Raises:
        BadInputError: fewer than one point or proxy.

    Source: Movshovitz-Attias et al. (arXiv 1703.07464), "dynamic proxy assignment", method 1000.

    Example:
        >>> import torch
        >>> assignment = DynamicAssignment(points=3, proxies=2)
        >>> assignment.refresh(torch.tensor([[1.0, 0.1], [0.9, 0.0], [1.0, -0.1]]), torch.eye(2))
        Refresh(moved=3, dead=1)
        >>> assignment.dead()
        tensor([1])
    """

    nearest: Tensor
    refreshes: Tensor

    def __init__(self, points: int, proxies: int) -> None:
        super().__init__()
        if points < 1 or proxies < 1:
            raise BadInputError(f"a dynamic assignment needs points >= 1 and proxies >= 1, got {points} and {proxies}")
        self.points, self.proxies = points, proxies
        self.register_buffer("nearest", torch.full((points,), -1))
        self.register_buffer("refreshes", torch.zeros((), dtype=torch.long))

    def forward(self, positions: Integer[Tensor, "B"]) -> Integer[Tensor, "B"]:
        """The remembered proxies of some points, -1 for those without one."""
        return self.nearest[positions]

    def dead(self) -> Integer[Tensor, "K"]:
        """The proxies without a point; means little before the first `refresh`."""
        counts = torch.bincount(self.nearest[self.nearest >= 0], minlength=self.proxies)
        return (counts == 0).nonzero().squeeze(1)

    @torch.no_grad()
    def refresh(self, embeddings: Float[Tensor, "N D"], proxies: Float[Tensor, "C D"]) -> Refresh:
        """Assign every point, in their order, anew to its nearest proxy.

        Raises:
            BadInputError: not as many embeddings or proxies as the assignment was made for.
        """
        self._check(embeddings, len(proxies))
        nearest = nearest_proxies(embeddings, proxies).to(self.nearest.device)
        moved = (nearest != self.nearest).sum()
        self.nearest.copy_(nearest)
        self.refreshes += 1
        return Refresh(int(moved), len(self.dead()))

    @torch.no_grad()
    def reseed(self, bank: ProxyBank, embeddings: Float[Tensor, "N D"], *, seed: int = 0) -> Integer[Tensor, "K"]:
        """Move each dead proxy onto a point of a proxy that has several, so that it gets a share of them.

        Points are drawn without repetition with a chance proportional to their squared distance from their
        proxy (as in k-means++): most come from crowded proxies and from far out. A little noise keeps
        proxies apart where points coincide. A moved proxy keeps its length.

        Call it after `refresh`. The draw depends on `seed` and on the number of refreshes alone, so a
        resumed run repeats it.

        Args:
            bank: whose rows are moved.
            embeddings: of all points, in their order.
            seed: of the draw and the noise.

        Returns:
            the proxies that were moved; the optimiser's momentum of these rows is worth clearing
            (`forget_rows`). Where points are too few, some proxies stay dead.

        Raises:
            BadInputError: not as many embeddings or proxies as the assignment was made for.
        """
        self._check(embeddings, bank.count)
        proxies = bank.proxies
        generator = torch.Generator().manual_seed(seed * 1_000_003 + int(self.refreshes))
        unit_ND, nearest = unit_rows(embeddings.to(proxies.device)), self.nearest.to(proxies.device)
        dead = self.dead().to(proxies.device)
        far_N = (unit_ND - unit_rows(proxies)[nearest.clamp_min(0)]).square().sum(1) + 1e-6
        # weighted draw without repetition: the smallest of exponential variables with these rates
        wait_N = torch.empty(self.points).exponential_(generator=generator).to(far_N) / far_N
        wait_N[nearest < 0] = torch.inf
        wait_N[_closest_of_each(far_N, nearest)] = torch.inf  # so that none loses its last point
        drawn = wait_N.argsort(stable=True)[: len(dead)]
        drawn = drawn[wait_N[drawn].isfinite()]
        moved = dead[: len(drawn)]
        noise = torch.randn(len(moved), bank.size, generator=generator).to(proxies)
        directions = unit_rows(unit_ND[drawn] + _NOISE * unit_rows(noise))
        lengths = proxies[moved].norm(dim=1, keepdim=True)
        proxies[moved] = (directions * torch.where(lengths > 0, lengths, 1)).to(proxies.dtype)
        self.nearest[drawn.to(self.nearest.device)] = moved.to(self.nearest.device)
        return moved

    def _check(self, embeddings: Tensor, proxies: int) -> None:
        check_points(embeddings)
        if len(embeddings) != self.points or proxies != self.proxies:
            raise BadInputError(
                f"this assignment is for {self.points} points and {self.proxies} proxies, "
                f"got {len(embeddings)} and {proxies}"
            )


def _closest_of_each(far_N: Tensor, nearest: Tensor) -> Tensor:
    """The position of the closest point of each proxy that has any, the first where several are."""
    order_N = far_N.argsort(stable=True)
    order_N = order_N[nearest[order_N].argsort(stable=True)]  # proxy by proxy, the closest first
    is_first_N = nearest[order_N].diff(prepend=nearest.new_tensor([-1])) > 0
    return order_N[is_first_N]


@torch.no_grad()
def start_from_points(bank: ProxyBank, embeddings: Float[Tensor, "N D"], *, rounds: int = 5, seed: int = 0) -> None:
    """Spread a bank over the points without labels: random points, then k-means with dead proxies re-seeded.

    Dynamic assignment can end with all points at one proxy; a bank that starts among the points rarely does.

    Args:
        bank: whose rows are replaced, by unit rows. With more proxies than points, the rest stay as they are.
        embeddings: one row a point.
        rounds: of nearest proxy and mean.
        seed: of the first points.

    Raises:
        BadInputError: no points, or of another size than the bank's.
    """
    check_points(embeddings, bank.size)
    points = unit_rows(embeddings.to(bank.proxies.device))
    assignment = DynamicAssignment(len(points), bank.count)
    drawn = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[: bank.count]
    bank.proxies[: len(drawn)] = points[drawn.to(points.device)].to(bank.proxies.dtype)
    for _ in range(rounds):
        assignment.refresh(points, bank.proxies)
        assignment.reseed(bank, points, seed=seed)
        means, found = means_of_points(points, assignment.nearest.to(points.device), bank.count)
        bank.proxies[found] = means[found].to(bank.proxies.dtype)


@torch.no_grad()
def forget_rows(optimiser: torch.optim.Optimizer, parameter: nn.Parameter, rows: Integer[Tensor, "K"]) -> None:
    """Clear the momentum that an optimiser keeps for some rows of a parameter, such as re-seeded proxies.

    Averages of squares stay: without them the first steps of the row would be many times too long.

    Args:
        optimiser: any of torch's.
        parameter: the matrix, such as `bank.proxies`.
        rows: which rows.
    """
    for name in ("exp_avg", "momentum_buffer"):
        kept = optimiser.state.get(parameter, {}).get(name)
        if kept is not None:
            kept[rows] = 0
