"""Soft-max: a linear classifier over the products, on embeddings as they are."""

from __future__ import annotations

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.losses.batch import check_choice
from univert.losses.proxy_loss import ProxyLoss
from univert.losses.proxy_softmax import Pooling, check_smoothing, proxy_softmax_mean
from univert.proxies.assignment import StaticAssignment


class SoftmaxLoss(ProxyLoss):
    """Mean of -log( exp(x.w+ + b+) / sum over c of exp(x.w_c + b_c) ): cross-entropy of a linear layer.

    Nothing is made unit length. It equals `cross_entropy(linear(x, weights, bias), labels)`, without ever holding
    B x C. The weights w are the rows of the proxy bank. Sibling of `NormalizedSoftmaxLoss`, which compares directions
    alone and usually retrieves better.

    Args:
        num_classes: with embedding_size, assignment and seed, see `ProxyLoss`.
        use_bias: learn a bias a row, zero at first.
        pooling: `soft` or `nearest`, for several rows a product.
        label_smoothing: the part of the target spread over all rows.

    Raises:
        BadInputError: settings out of range, an assignment of other products, or fewer than two rows.

    Source: the classification baseline of deep metric learning, e.g. arXiv 1811.12649, eq. 1.

    Example:
        >>> import torch
        >>> loss = SoftmaxLoss(num_classes=3, embedding_size=2, seed=0)
        >>> bool(loss(torch.eye(2), torch.tensor([0, 2])) > 0)
        True
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        use_bias: bool = True,
        pooling: Pooling = "soft",
        label_smoothing: float = 0.0,
        assignment: StaticAssignment | None = None,
        seed: int | None = None,
    ) -> None:
        check_choice(pooling, Pooling, "pooling")
        check_smoothing(label_smoothing)
        super().__init__(num_classes, embedding_size, assignment=assignment, seed=seed)
        self.bias = nn.Parameter(torch.zeros(self.assignment.count)) if use_bias else None
        self.pooling: Pooling = pooling
        self.label_smoothing = label_smoothing

    def _loss(self, embeddings: Float[Tensor, "B D"], own: Integer[Tensor, "B M"]) -> Float[Tensor, ""]:
        return proxy_softmax_mean(
            embeddings,
            self.bank(),
            own,
            bias=self.bias,
            unit_proxies=False,
            pooling=self.pooling,
            label_smoothing=self.label_smoothing,
        )
