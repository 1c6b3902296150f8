"""Proxied N-pairs: each image's dot product with its proxy against those with all other proxies."""

from __future__ import annotations

from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.losses.assigned import checked_assigned, checked_assignment
from univert.losses.checks import check_not_negative, check_positive
from univert.losses.proxy_softmax import proxy_softmax_sum
from univert.proxies.assignment import StaticAssignment
from univert.proxies.bank import ProxyBank


def proxy_n_pairs_loss(
    embeddings: Float[Tensor, "B D"],
    proxies: Float[Tensor, "C D"],
    assigned: Integer[Tensor, "B M"] | Integer[Tensor, "B"],
    *,
    scale: float = 16.0,
    l2_reg_weight: float = 0.0,
    chunk_rows: int | None = None,
) -> Float[Tensor, ""]:
    """Mean over images of log(1 + sum over p- of exp(scale (x.p- - x.p+))) + l2_reg_weight |x|^2.

    p+ is the image's own proxy and p- every other product's; where it owns several, exp(scale x.p+) is their
    sum. Nothing is made unit length: lengths are the model's to choose, and `l2_reg_weight` keeps them in check.
    With unit rows it is `proxy_nca_loss` at half the scale, since d = 2 - 2 x.p. B x C is never held: the
    images are streamed in chunks.

    Args:
        embeddings: one row an image.
        proxies: one row a proxy.
        assigned: the rows of each image's own proxies, one or M of them.
        scale: 1/temperature. The paper has 1, for vectors of any length; the dot products of unit vectors lie in
            [-1, 1], which needs more.
        l2_reg_weight: of the mean squared length of the embeddings.
        chunk_rows: images a chunk; None chooses.

    Raises:
        BadInputError: wrong shapes or dtypes, an assignment outside the proxies, a scale that is not positive, a
            negative weight, fewer than two proxies.

    Source: the (N+1)-tuplet loss and the L2 regularisation of Sohn, Multi-class N-pair loss objective (NIPS 2016),
    with proxies in place of the other images, as Proxies eq. 7 does for any loss.
    """
    assigned_BM = checked_assigned(assigned, embeddings, proxies, loss="Proxied N-pairs")
    check_proxy_n_pairs(scale, l2_reg_weight)
    embeddings = embeddings.float()
    total = proxy_softmax_sum(scale * embeddings, proxies, assigned_BM, unit_proxies=False, chunk_rows=chunk_rows)
    if l2_reg_weight > 0:
        total = total + l2_reg_weight * embeddings.square().sum()
    return total / max(len(embeddings), 1)


def check_proxy_n_pairs(scale: float, l2_reg_weight: float) -> None:
    """Refuse settings with which proxied N-pairs means nothing.

    Raises:
        BadInputError: a scale that is not positive and finite, a weight below zero or not finite.
    """
    check_positive(scale, "scale (= 1/temperature)")
    check_not_negative(l2_reg_weight, "l2_reg_weight")


class ProxyNPairsLoss(nn.Module):
    """Module form of `proxy_n_pairs_loss` with learned proxies.

    The proxies are parameters: hand `parameters()` to the optimiser, with a learning rate well above the
    network's. Sibling of `NPairsLoss`, where the other images of the batch stand in for the proxies.

    Args:
        num_classes: how many products there are; labels run from 0 to `num_classes - 1`.
        embedding_size: D.
        scale: 1/temperature; the default suits unit embeddings. Where lengths are free to grow, take the paper's 1.
        l2_reg_weight: of the mean squared length of the embeddings.
        assignment: which proxies belong to which product; None: one each. Fewer proxies than products, and
            several a product, are both fine.
        seed: of the random initial proxies.

    Raises:
        BadInputError: settings out of range, an assignment of other products, no negative proxy.

    Example:
        >>> import torch
        >>> loss = ProxyNPairsLoss(num_classes=3, embedding_size=2, l2_reg_weight=0.002, seed=0)
        >>> value = loss(torch.eye(2), torch.tensor([0, 2]))
        >>> bool(value > 0)
        True
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        *,
        scale: float = 16.0,
        l2_reg_weight: float = 0.0,
        assignment: StaticAssignment | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_proxy_n_pairs(scale, l2_reg_weight)
        self.assignment = checked_assignment(assignment, num_classes, loss="Proxied N-pairs")
        self.bank = ProxyBank(self.assignment.count, embedding_size, seed=seed)
        self.scale, self.l2_reg_weight = scale, l2_reg_weight

    def forward(self, embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, "B"]) -> Float[Tensor, ""]:
        """The loss of one batch; `labels` are products."""
        assigned = self.assignment(labels)
        return proxy_n_pairs_loss(embeddings, self.bank(), assigned, scale=self.scale, l2_reg_weight=self.l2_reg_weight)
