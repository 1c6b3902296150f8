"""The proxy bank: a matrix of proxies learned together with the network (arXiv 1703.07464, Algorithm 1)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.core.tensors import unit_rows
from univert.proxies.assignment import StaticAssignment

_ROUNDS = 5
_ROWS_AT_ONCE = 1 << 14
_APART = 1e-6  # squared distance below which two points count as one


class ProxyBank(nn.Module):
    """Learned points that stand for products, one row each.

    Rows start as random directions of unit length and are free to grow; losses that need unit vectors normalise them,
    which leaves a row's length as a learning rate of its own.

    Args:
        count: number of proxies.
        size: D, the size of the embeddings they are compared with.
        sparse: `rows` gives sparse gradients, for optimisers that take them (SGD, SparseAdam); a step
            then touches only the proxies that were asked for.
        seed: of the random start; None draws from torch's global generator.

    Attributes:
        proxies: the (count, size) float32 parameter.

    Raises:
        BadInputError: a count or size below 1.

    Example:
        >>> import torch
        >>> bank = ProxyBank(3, 2, seed=0)
        >>> bank.rows(torch.tensor([2, 0])).shape
        torch.Size([2, 2])
    """

    def __init__(self, count: int, size: int, *, sparse: bool = False, seed: int | None = None) -> None:
        super().__init__()
        if count < 1 or size < 1:
            raise BadInputError(f"a proxy bank needs count >= 1 and size >= 1, got {count} and {size}")
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        start = torch.randn(count, size, generator=generator)
        start /= start.norm(dim=1, keepdim=True)  # in place: a million proxies are not there twice
        self.proxies = nn.Parameter(start)
        self.count, self.size, self.sparse = count, size, sparse

    def forward(self) -> Float[Tensor, "C D"]:
        """All rows."""
        return self.proxies

    def rows(self, index: Integer[Tensor, "..."]) -> Float[Tensor, "... D"]:
        """The rows named by `index`; with `sparse`, only they get a gradient."""
        return nn.functional.embedding(index, self.proxies, sparse=self.sparse)

    @torch.no_grad()
    def fill_(
        self,
        embeddings: Float[Tensor, "N D"],
        labels: Integer[Tensor, "N"],
        assignment: StaticAssignment,
        *,
        seed: int = 0,
    ) -> ProxyBank:
        """Put each proxy at the mean direction of the points it stands for; unit rows.

        The points of a product with several proxies are split between them by a small k-means. A proxy
        with no point stays where it is, which in a new bank is a random direction.

        Args:
            embeddings: one row an image, by the network as it is before training.
            labels: the product of each row.
            assignment: which proxies each product has.
            seed: of the split.

        Returns:
            the bank itself.

        Raises:
            BadInputError: embeddings, assignment or labels that do not fit the bank or each other.
        """
        check_points(embeddings, self.size)
        if assignment.count != self.count:
            raise BadInputError(f"assignment has {assignment.count} proxies, but the bank {self.count}")
        if len(labels) != len(embeddings):
            raise BadInputError(f"labels must be as many as the embeddings: {len(labels)} against {len(embeddings)}")
        own = assignment(labels).to(self.proxies.device)
        points = embeddings.to(self.proxies.device)
        means, found = means_of_points(points, split_over_proxies(points, own, self.count, seed=seed), self.count)
        self.proxies[found] = means[found].to(self.proxies.dtype)
        return self

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"count={self.count}, size={self.size}, sparse={self.sparse}"


def check_points(points: Tensor, size: int | None = None, *, name: str = "embeddings") -> None:
    """Refuse anything but a floating-point matrix, with `size` columns where that is given."""
    if points.ndim != 2 or not points.is_floating_point() or size not in (None, points.shape[1]):
        wanted = "floating-point matrix" + (f" with {size} columns" if size is not None else "")
        raise BadInputError(f"{name} must be a {wanted}, got {points.dtype} of shape {tuple(points.shape)}")


@torch.no_grad()
def means_of_points(
    points: Float[Tensor, "N D"], owned: Integer[Tensor, "N"], count: int
) -> tuple[Float[Tensor, "C D"], Bool[Tensor, "C"]]:
    """The mean direction of the points of each proxy (zero where there is none), and which proxies have one at all.

    Points are first made unit length; those owned by -1 are left out.
    """
    kept = owned >= 0
    # float64: the order of the sum, which a GPU does not fix, then leaves no trace in float32
    sums_CD = points.new_zeros(count, points.shape[1], dtype=torch.float64)
    sums_CD.index_add_(0, owned[kept], unit_rows(points[kept]).double())
    lengths_C = sums_CD.norm(dim=1)
    found = lengths_C > _APART
    return (sums_CD / lengths_C.clamp_min(_APART)[:, None] * found[:, None]).float(), found


@torch.no_grad()
def split_over_proxies(
    points: Float[Tensor, "N D"], own: Integer[Tensor, "N M"], count: int, *, seed: int = 0
) -> Integer[Tensor, "N"]:
    """Give each point one of its own proxies: a small k-means of unit rows within each product.

    The first proxy of a product starts at a random point of it, each further one at the point farthest
    from those before (so that no two coincide); then a few rounds of nearest proxy and mean. A product with fewer
    distinct points than proxies leaves some unused.
    """
    if own.shape[1] == 1:
        return own[:, 0]
    points = unit_rows(points)
    centres_CD = points.new_full((count, points.shape[1]), torch.inf)  # infinitely far: not there yet
    draw_N = torch.rand(len(points), generator=torch.Generator().manual_seed(seed)).to(points.device)
    worth_N = draw_N + _APART
    for column in own.T:
        chosen_C = _best_of_each(worth_N, column, count)
        filled = chosen_C >= 0
        centres_CD[filled] = points[chosen_C[filled]]
        worth_N = _choose(points, centres_CD, own)[1]
        worth_N = torch.where(worth_N.isfinite(), worth_N, draw_N)
    chosen_N = _choose(points, centres_CD, own)[0]
    for _ in range(_ROUNDS):
        means_CD, found = means_of_points(points, chosen_N, count)
        centres_CD[found] = means_CD[found]
        chosen_N = _choose(points, centres_CD, own)[0]
    return chosen_N


def _best_of_each(worth_N: Tensor, owned: Tensor, count: int) -> Tensor:
    """For each proxy the position of its point of most worth, -1 where none is worth anything."""
    best_C = worth_N.new_zeros(count).scatter_reduce_(0, owned, worth_N, "amax")
    positions_N = torch.arange(len(worth_N), device=worth_N.device)
    is_best_N = (worth_N > _APART) & (worth_N == best_C[owned])
    first_C = owned.new_full((count,), len(worth_N))
    first_C.scatter_reduce_(0, owned[is_best_N], positions_N[is_best_N], "amin")
    return first_C.masked_fill(first_C == len(worth_N), -1)


def _choose(points: Tensor, centres_CD: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest own centre of each point, and its squared distance."""
    chosen, distances = [], []
    for rows, choices in zip(points.split(_ROWS_AT_ONCE), own.split(_ROWS_AT_ONCE), strict=True):
        distance_N, column_N = (rows[:, None] - centres_CD[choices]).square().sum(2).min(1)
        chosen.append(choices.gather(1, column_N[:, None]).squeeze(1))
        distances.append(distance_N)
    return torch.cat(chosen), torch.cat(distances)
