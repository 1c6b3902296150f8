"""What losses with learned proxies share: the bank, the proxies of each product, and the checks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.losses.label_loss import Batch, LabelLoss
from univert.proxies.assignment import StaticAssignment
from univert.proxies.bank import ProxyBank


class ProxyLoss(LabelLoss):
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
        weight_init_func: fills the initial proxies instead, in place.
        weight_regularizer: called with the proxies, one row each, for a scalar to be added.
        weight_reg_weight: its weight.
        common: see `LabelLoss`.

    Attributes:
        bank: the proxies.
        proxies: the parameter in it, one row a proxy; may be replaced.
        assignment: the table.

    Raises:
        BadInputError: an assignment of other products, or one that leaves a product without a negative proxy; both
            `seed` and `weight_init_func`.
    """

    images_meet = False
    columns: ClassVar[str | None] = None  # the attribute in which pytorch-metric-learning has the proxies as columns

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        assignment: StaticAssignment | None = None,
        sparse: bool = False,
        seed: int | None = None,
        weight_init_func: Callable[[Tensor], Any] | None = None,
        weight_regularizer: Callable[[Tensor], Tensor] | None = None,
        weight_reg_weight: float = 1.0,
        **common: Any,
    ) -> None:
        super().__init__(**common)
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
        if weight_init_func is not None:
            if seed is not None:
                raise BadInputError(f"seed has no effect beside weight_init_func, got {seed}; leave one of them out")
            rows = self.bank.proxies.detach()
            start = torch.empty(rows.shape if self.columns is None else rows.T.shape)
            weight_init_func(start)
            rows.copy_(start if self.columns is None else start.T)
        self.weight_regularizer, self.weight_reg_weight = weight_regularizer, weight_reg_weight

    @property
    def proxies(self) -> nn.Parameter:
        """The proxies, one row each."""
        return self.bank.proxies

    def __setattr__(self, name: str, value: Any) -> None:
        """Lets proxies be replaced under the names they have in pytorch-metric-learning, as parameters of the bank."""
        if name == "proxies":
            self.bank.proxies = value
        elif name == self.columns:
            self.bank.proxies = nn.Parameter(value.detach().T.contiguous())
        else:
            super().__setattr__(name, value)

    def _value(self, batch: Batch) -> Float[Tensor, ""]:
        if batch.embeddings.shape[1] != self.bank.proxies.shape[1]:
            sizes = f"{batch.embeddings.shape[1]} and {self.bank.proxies.shape[1]}"
            raise BadInputError(f"embeddings and proxies must have the same size, got {sizes}")
        value = self._loss(batch.embeddings, self.assignment(batch.labels))
        if self.weight_regularizer is not None:
            value = value + self.weight_reg_weight * self.weight_regularizer(self.bank.proxies)
        return value

    @abstractmethod
    def _loss(self, embeddings: Float[Tensor, "B D"], own: Integer[Tensor, "B M"]) -> Float[Tensor, ""]:
        """The loss of a batch that has been checked; `own` are each image's own proxies."""
