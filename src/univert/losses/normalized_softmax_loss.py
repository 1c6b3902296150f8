"""Normalised soft-max: a classifier by cosine, whose weights are proxies of unit length."""

from __future__ import annotations

from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.core.tensors import unit_rows
from univert.losses.assigned import checked_assigned, checked_assignment
from univert.losses.checks import check_positive
from univert.losses.proxy_softmax import Pooling, check_pooling, check_smoothing, proxy_softmax_sum
from univert.proxies.assignment import StaticAssignment
from univert.proxies.bank import ProxyBank


def normalized_softmax_loss(
    embeddings: Float[Tensor, "B D"],
    proxies: Float[Tensor, "C D"],
    assigned: Integer[Tensor, "B M"] | Integer[Tensor, "B"],
    *,
    temperature: float = 0.05,
    pooling: Pooling = "soft",
    label_smoothing: float = 0.0,
    chunk_rows: int | None = None,
) -> Float[Tensor, ""]:
    """Mean of -log( exp(cos(x, p+) / T) / sum over p of exp(cos(x, p) / T) ).

    Since the squared distance of unit vectors is 2 - 2 cos, it equals `proxy_nca_loss` in the soft-max form with
    scale = 1 / (2 T). B x C is never held.

    Args:
        embeddings: one row an image, made unit length first.
        proxies: one row a proxy, made unit length first.
        assigned: the rows of each image's own proxies p+, one or M of them; one named twice counts once.
        temperature: T = 1/scale of the cosines.
        pooling: of several own proxies, `soft` takes the sum of their exponentials, `nearest` the nearest alone.
        label_smoothing: this part of the target is spread evenly over all C proxies.
        chunk_rows: images a chunk; None chooses.

    Raises:
        BadInputError: wrong shapes or dtypes, an assignment outside the proxies, a temperature that is not
            positive, an unknown pooling, a smoothing outside 0..1, fewer than two proxies.

    Source: Zhai and Wu, Classification is a strong baseline for deep metric learning (arXiv 1811.12649), eq. 3.
    """
    assigned_BM = checked_assigned(assigned, embeddings, proxies, loss="Normalised soft-max")
    check_normalized_softmax(temperature, pooling, label_smoothing)
    total = proxy_softmax_sum(
        unit_rows(embeddings) / temperature,
        proxies,
        assigned_BM,
        pooling=pooling,
        label_smoothing=label_smoothing,
        chunk_rows=chunk_rows,
    )
    return total / max(len(embeddings), 1)


def check_normalized_softmax(temperature: float, pooling: str, label_smoothing: float) -> None:
    """Refuse settings with which the normalised soft-max means nothing.

    Raises:
        BadInputError: a temperature that is not positive and finite, an unknown pooling, a smoothing outside 0..1.
    """
    check_positive(temperature, "temperature (= 1/scale)")
    check_pooling(pooling)
    check_smoothing(label_smoothing)


class NormalizedSoftmaxLoss(nn.Module):
    """Module form of `normalized_softmax_loss` with learned proxies.

    The proxies are parameters: hand `parameters()` to the optimiser. Sibling of `ProxyNCALoss`, whose scale is half of
    1/temperature, and of `SoftmaxLoss`, which normalises nothing.

    Args:
        num_classes: how many products there are; labels run from 0 to `num_classes - 1`.
        embedding_size: D.
        temperature: T = 1/scale of the cosines.
        pooling: `soft` or `nearest`, for several proxies a product.
        label_smoothing: the part of the target spread over all proxies.
        assignment: which proxies belong to which product; None: one each.
        seed: of the random initial proxies.

    Raises:
        BadInputError: settings out of range, an assignment of other products, no negative proxy.

    Example:
        >>> import torch
        >>> loss = NormalizedSoftmaxLoss(num_classes=3, embedding_size=2, seed=0)
        >>> value = loss(torch.eye(2), torch.tensor([0, 2]))
        >>> bool(value > 0)
        True
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        temperature: float = 0.05,
        *,
        pooling: Pooling = "soft",
        label_smoothing: float = 0.0,
        assignment: StaticAssignment | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_normalized_softmax(temperature, pooling, label_smoothing)
        self.assignment = checked_assignment(assignment, num_classes, loss="Normalised soft-max")
        self.bank = ProxyBank(self.assignment.count, embedding_size, seed=seed)
        self.temperature = temperature
        self.pooling: Pooling = pooling
        self.label_smoothing = label_smoothing

    def forward(self, embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, "B"]) -> Float[Tensor, ""]:
        """The loss of one batch; `labels` are products."""
        return normalized_softmax_loss(
            embeddings,
            self.bank(),
            self.assignment(labels),
            temperature=self.temperature,
            pooling=self.pooling,
            label_smoothing=self.label_smoothing,
        )
