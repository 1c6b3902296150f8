"""Soft-max: a linear classifier over the products, on embeddings as they are."""

from __future__ import annotations

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.losses.assigned import checked_assigned, checked_assignment
from univert.losses.proxy_softmax import Pooling, check_pooling, check_smoothing, proxy_softmax_sum
from univert.proxies.assignment import StaticAssignment
from univert.proxies.bank import ProxyBank


def softmax_loss(
    embeddings: Float[Tensor, "B D"],
    weights: Float[Tensor, "C D"],
    assigned: Integer[Tensor, "B M"] | Integer[Tensor, "B"],
    *,
    bias: Float[Tensor, "C"] | None = None,
    pooling: Pooling = "soft",
    label_smoothing: float = 0.0,
    chunk_rows: int | None = None,
) -> Float[Tensor, ""]:
    """Mean of -log( exp(x.w+ + b+) / sum over c of exp(x.w_c + b_c) ): cross-entropy of a linear layer.

    Nothing is made unit length. With one own row an image it equals `cross_entropy(linear(x, weights, bias), labels)`,
    without ever holding B x C.

    Args:
        embeddings: one row an image.
        weights: one row a product (or, with an assignment, a proxy).
        assigned: the own rows w+ of each image, one or M of them; one named twice counts once.
        bias: one a row of `weights`.
        pooling: of several own rows, `soft` takes the sum of their exponentials, `nearest` the largest alone.
        label_smoothing: this part of the target is spread evenly over all C rows.
        chunk_rows: images a chunk; None chooses.

    Raises:
        BadInputError: wrong shapes or dtypes, an assignment outside the rows, an unknown pooling, a smoothing
            outside 0..1, fewer than two rows.

    Source: the classification baseline of deep metric learning, e.g. arXiv 1811.12649, eq. 1.
    """
    assigned_BM = checked_assigned(assigned, embeddings, weights, loss="Soft-max")
    check_pooling(pooling)
    check_smoothing(label_smoothing)
    if bias is not None and (bias.shape != weights.shape[:1] or not bias.is_floating_point()):
        raise BadInputError(
            f"bias must be a floating-point vector, one a row of weights ({len(weights)}), got {bias.dtype} of shape "
            f"{tuple(bias.shape)}"
        )
    total = proxy_softmax_sum(
        embeddings,
        weights,
        assigned_BM,
        bias=bias,
        unit_proxies=False,
        pooling=pooling,
        label_smoothing=label_smoothing,
        chunk_rows=chunk_rows,
    )
    return total / max(len(embeddings), 1)


class SoftmaxLoss(nn.Module):
    """Module form of `softmax_loss` with learned weights and biases.

    The weights are parameters, kept in a proxy bank: hand `parameters()` to the optimiser. Sibling of
    `NormalizedSoftmaxLoss`, which compares directions alone and usually retrieves better.

    Args:
        num_classes: how many products there are; labels run from 0 to `num_classes - 1`.
        embedding_size: D.
        use_bias: learn a bias a row, zero at first.
        pooling: `soft` or `nearest`, for several rows a product.
        label_smoothing: the part of the target spread over all rows.
        assignment: which rows belong to which product; None: one each.
        seed: of the random initial weights.

    Raises:
        BadInputError: settings out of range, an assignment of other products, or fewer than two rows.

    Example:
        >>> import torch
        >>> loss = SoftmaxLoss(num_classes=3, embedding_size=2, seed=0)
        >>> value = loss(torch.eye(2), torch.tensor([0, 2]))
        >>> bool(value > 0)
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
        super().__init__()
        check_pooling(pooling)
        check_smoothing(label_smoothing)
        self.assignment = checked_assignment(assignment, num_classes, loss="Soft-max")
        self.bank = ProxyBank(self.assignment.count, embedding_size, seed=seed)
        self.bias = nn.Parameter(torch.zeros(self.assignment.count)) if use_bias else None
        self.pooling: Pooling = pooling
        self.label_smoothing = label_smoothing

    def forward(self, embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, "B"]) -> Float[Tensor, ""]:
        """The loss of one batch; `labels` are products."""
        return softmax_loss(
            embeddings,
            self.bank(),
            self.assignment(labels),
            bias=self.bias,
            pooling=self.pooling,
            label_smoothing=self.label_smoothing,
        )
