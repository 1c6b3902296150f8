"""What losses with learned proxies share: the bank, the proxies of each product, and the checks."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.losses.batch import check_batch
from univert.proxies.assignment import StaticAssignment
from univert.proxies.bank import ProxyBank


class ProxyLoss(nn.Module, ABC):
    """Base of the losses whose proxies belong to products: a bank of them, and a table of who owns which.

    The proxies are parameters: hand `parameters()` to the optimiser, with a learning rate well above the network's
    (Proxy-Anchor's paper: 100 times). A loss adds its settings and `_loss`.

    Args:
        num_classes: how many products there are; labels run from 0 to `num_classes - 1`.
        embedding_size: D.
        assignment: which proxies belong to which product; None: one each. Fewer proxies than products, and several
            a product, are both fine.
        sparse: sparse gradients of the rows that are looked up.
        seed: of the random initial proxies.

    Attributes:
        bank: the proxies.
        assignment: the table.

    Raises:
        BadInputError: an assignment of other products, or one that leaves a product without a negative proxy.
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        assignment: StaticAssignment | None = None,
        sparse: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.assignment = assignment or StaticAssignment.one_per_product(num_classes)
        if self.assignment.products != num_classes:
            raise BadInputError(
                f"assignment must be of num_classes = {num_classes} products, got one of {self.assignment.products}"
            )
        owned_C = 1 + self.assignment.table.sort(1).values.diff(dim=1).ne(0).sum(1)  # one named twice counts once
        if int(owned_C.max()) >= self.assignment.count:
            raise BadInputError(
                f"every product needs a negative proxy, but one owns all {self.assignment.count} of them"
            )
        self.bank = ProxyBank(self.assignment.count, embedding_size, sparse=sparse, seed=seed)

    def forward(self, embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, "B"]) -> Float[Tensor, ""]:
        """The loss of one batch.

        Args:
            embeddings: one row an image.
            labels: the product of each row.

        Returns:
            a float32 scalar.

        Raises:
            BadInputError: wrong shapes or dtypes, or a label outside the products.
        """
        check_batch(embeddings, labels)
        if embeddings.shape[1] != self.bank.proxies.shape[1]:
            sizes = f"{embeddings.shape[1]} and {self.bank.proxies.shape[1]}"
            raise BadInputError(f"embeddings and proxies must have the same size, got {sizes}")
        return self._loss(embeddings, self.assignment(labels))

    @abstractmethod
    def _loss(self, embeddings: Float[Tensor, "B D"], own: Integer[Tensor, "B M"]) -> Float[Tensor, ""]:
        """The loss of a batch that has been checked; `own` are each image's own proxies."""
