"""Proxy-NCA without product labels: each point belongs to its nearest proxy (the proxies paper, method 1000)."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.core.tensors import check_indices, squared_distances, unit_rows
from univert.losses.batch import check_labels, check_positive
from univert.losses.label_loss import Batch, LabelLoss
from univert.losses.streaming import streamed_sum
from univert.proxies.bank import ProxyBank
from univert.proxies.dynamic import nearest_proxies

_NOTHING = -1e30  # stands for log 0: unlike -inf it gives no NaN in gradients


def dynamic_proxy_nca_loss(
    anchors: Float[Tensor, "A D"],
    proxies: Float[Tensor, "C D"],
    assigned: Integer[Tensor, "E"],
    similar: Bool[Tensor, "A E"],
    dissimilar: Bool[Tensor, "A E"],
    *,
    softmax_scale: float = 9.0,
    sparse: bool = False,
) -> Float[Tensor, ""]:
    """Mean over pairs (x, y) of -log( exp(-s d(x, p(y))) / sum over p of exp(-s d(x, p)) ), on unit rows.

    x is an anchor, y an example similar to it, and p(y) the proxy that y is assigned to: of the examples
    only their proxies matter. The sum runs over p(y) and p(Z), the proxies of the examples dissimilar to x, each
    once. A dissimilar z with p(z) = p(y) cannot be told from y and is left out; a pair with nothing left
    in p(Z) does not count. What is neither similar nor dissimilar is simply unknown.

    An anchor is no positive of itself. With `sparse` the proxies get a sparse gradient, of the assigned rows only. The
    value is zero, with zero gradients, where no pair counts.

    Source: Movshovitz-Attias et al. (arXiv 1703.07464), eq. 4 with p of eq. 5, and p(y) in the sum as in ProxyNCA++
    (arXiv 2004.01113).
    """
    assigned = assigned.long()
    # one column an example; of those that share a proxy the first speaks for all, so that each counts once
    first_E = (assigned[:, None] == assigned).int().argmax(1) if len(assigned) else assigned
    similar_AE = _sum_columns(similar, first_E)
    negative_AE = _sum_columns(dissimilar, first_E) > 0
    left_AE = negative_AE.sum(1, keepdim=True) - negative_AE.int()
    pairs_AE = similar_AE * (left_AE > 0)
    own_ED = unit_rows(nn.functional.embedding(assigned, proxies, sparse=sparse))
    total = streamed_sum(partial(_term, scale=softmax_scale), (anchors, pairs_AE, negative_AE), (own_ED,))
    return total / pairs_AE.sum().clamp_min(1)


def _term(anchors: Tensor, pairs_AE: Tensor, negative_AE: Tensor, own_ED: Tensor, *, scale: float) -> Tensor:
    """The sum over some anchors; a pair that is there several times counts as often."""
    logits_AE = -scale * squared_distances(unit_rows(anchors), own_ED)
    below_AE = torch.logaddexp(_log_sum_of_the_others(logits_AE, negative_AE), logits_AE)
    return (pairs_AE * (below_AE - logits_AE).masked_fill(pairs_AE == 0, 0)).sum()


def _log_sum_of_the_others(logits_AE: Tensor, negative_AE: Tensor) -> Tensor:
    """For each column the log of the sum of exp over the negative columns of its row other than itself.

    Subtracting a term from its sum is exact enough while the term is at most half of it, which holds for all
    but the largest; the sum without that one is computed anew.
    """
    masked_AE = logits_AE.masked_fill(~negative_AE, _NOTHING)
    whole_A1 = masked_AE.logsumexp(1, keepdim=True)
    is_top_AE = torch.zeros_like(negative_AE).scatter(1, masked_AE.argmax(1, keepdim=True), True)
    without_top_A1 = masked_AE.masked_fill(is_top_AE, _NOTHING).logsumexp(1, keepdim=True)
    share_AE = (masked_AE - whole_A1).exp().masked_fill(is_top_AE | ~negative_AE, 0)
    return torch.where(is_top_AE, without_top_A1, whole_A1 + (-share_AE).log1p())


def _sum_columns(relation_AE: Tensor, first_E: Tensor) -> Tensor:
    """How many related examples each column speaks for."""
    counts_AE = torch.zeros(relation_AE.shape, device=relation_AE.device)
    return counts_AE.scatter_add_(1, first_E.expand_as(relation_AE), relation_AE.float())


class DynamicProxyNCALoss(LabelLoss):
    """Module form of `dynamic_proxy_nca_loss`: learns from what is similar and what is not, without products.

    Each call assigns the batch to its nearest proxies by their present embeddings (no gradient flows through
    that choice), or takes an assignment kept by `univert.proxies.dynamic.DynamicAssignment`.

    Labels say only which rows of a batch are similar, by being equal; any integers do. An `indices_tuple` of pairs or
    triplets that are known takes their place; all other pairs are then unknown.

    Beware of one trivial end: points that are dissimilar and share a proxy have nothing that drives them
    apart, so if all choose one proxy the loss is zero. Start the bank among the points
    (`start_from_points(loss.bank, embeddings)`), and every so many steps let proxies that nobody chose take
    a share of the others' points (`DynamicAssignment.refresh` and `reseed`).

    Args:
        num_proxies: any number from 2; about one a product, if there were products.
        embedding_size: D.
        softmax_scale: s = 1/temperature.
        sparse: sparse gradients of the proxies, for very many of them and optimisers that take such.
        seed: of the random initial proxies.

    Attributes:
        bank: the proxies, a `ProxyBank`.

    Raises:
        BadInputError: fewer than two proxies, a scale that is not positive.

    Example:
        >>> import torch
        >>> loss = DynamicProxyNCALoss(num_proxies=4, embedding_size=2, seed=0)
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> bool(loss(embeddings, torch.tensor([7, 7, -3, -3])) > 0)
        True
    """

    takes = ("indices_tuple", "assigned")

    def __init__(
        self,
        num_proxies: int,
        embedding_size: int,
        softmax_scale: float = 9.0,
        *,
        sparse: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        if num_proxies < 2:
            raise BadInputError(f"num_proxies must be at least 2, got {num_proxies}: with one there is no negative")
        check_positive(softmax_scale, "softmax_scale (= 1/temperature)")
        self.bank = ProxyBank(num_proxies, embedding_size, sparse=sparse, seed=seed)
        self.softmax_scale = softmax_scale

    def _value(self, batch: Batch) -> Float[Tensor, ""]:
        x, proxies = batch.embeddings, self.bank.proxies
        assigned = nearest_proxies(x, proxies)
        if batch.assigned is not None:
            check_labels(batch.assigned, x, name="assigned")
            assigned = torch.where(batch.assigned == -1, assigned, batch.assigned.long())
            check_indices(assigned, self.bank.count, name="assigned")
        return dynamic_proxy_nca_loss(
            x, proxies, assigned, *batch.pairs(), softmax_scale=self.softmax_scale, sparse=self.bank.sparse
        )
