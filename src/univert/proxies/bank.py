"""The proxy bank: a matrix of proxies learned together with the network (Proxies, Algorithm 1)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.core.tensors import unit_rows
from univert.proxies.assignment import StaticAssignment
from univert.proxies.start import check_points, means_of_points, split_over_proxies


class ProxyBank(nn.Module):
    """Learned points that stand for products, one row each.

    Rows start as random directions of unit length. By default they are free to grow; losses that need
    unit vectors normalise them, which leaves a row's length as a learning-rate of its own.

    Args:
        count: number of proxies.
        size: D, the size of the embeddings they are compared with.
        unit_norm: give rows of unit length, whatever length the parameter has.
        sparse: `rows` gives sparse gradients, for optimisers that take them (SGD, SparseAdam); a step
            then touches only the proxies that were asked for.
        seed: of the random start; None draws from torch's global generator.

    Attributes:
        proxies: the (count, size) float32 parameter.

    Raises:
        BadInputError: a count or size below 1.

    Example:
        >>> import torch
        >>> bank = ProxyBank(3, 2, unit_norm=True, seed=0)
        >>> bank().norm(dim=1)
        tensor([1., 1., 1.], grad_fn=<LinalgVectorNormBackward0>)
        >>> bank.rows(torch.tensor([2, 0])).shape
        torch.Size([2, 2])
    """

    def __init__(
        self, count: int, size: int, *, unit_norm: bool = False, sparse: bool = False, seed: int | None = None
    ) -> None:
        super().__init__()
        if count < 1 or size < 1:
            raise BadInputError(f"a proxy bank needs count >= 1 and size >= 1, got {count} and {size}")
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        start = torch.randn(count, size, generator=generator)
        start /= start.norm(dim=1, keepdim=True)  # in place: a million proxies are not there twice
        self.proxies = nn.Parameter(start)
        self.count, self.size = count, size
        self.unit_norm, self.sparse = unit_norm, sparse

    def forward(self) -> Float[Tensor, "C D"]:
        """All rows, of unit length where the bank was made so."""
        return unit_rows(self.proxies) if self.unit_norm else self.proxies

    def rows(self, index: Integer[Tensor, "..."]) -> Float[Tensor, "... D"]:
        """The rows named by `index`; with `sparse`, only they get a gradient.

        Args:
            index: rows of the bank, 0..count-1, of any shape.
        """
        found = nn.functional.embedding(index, self.proxies, sparse=self.sparse)
        return unit_rows(found) if self.unit_norm else found

    @classmethod
    def from_embeddings(
        cls,
        embeddings: Float[Tensor, "N D"],
        labels: Integer[Tensor, "N"],
        assignment: StaticAssignment,
        *,
        unit_norm: bool = False,
        sparse: bool = False,
        seed: int = 0,
    ) -> ProxyBank:
        """A bank that starts from the data rather than at random; see `fill_`."""
        check_points(embeddings)
        bank = cls(assignment.count, embeddings.shape[1], unit_norm=unit_norm, sparse=sparse, seed=seed)
        return bank.to(embeddings.device).fill_(embeddings, labels, assignment, seed=seed)

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
            BadInputError: embeddings of another size, an assignment of another number of proxies, labels
                that the assignment refuses or that are not as many as the embeddings.
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
        return f"count={self.count}, size={self.size}, unit_norm={self.unit_norm}, sparse={self.sparse}"
