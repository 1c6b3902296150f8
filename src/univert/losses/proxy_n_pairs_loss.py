"""Proxied N-pairs: each image's dot product with its proxy against those with all other proxies."""

from __future__ import annotations

from jaxtyping import Float, Integer
from torch import Tensor

from univert.losses.batch import check_not_negative, check_positive
from univert.losses.proxy_loss import ProxyLoss
from univert.losses.proxy_softmax import proxy_softmax_mean
from univert.proxies.assignment import StaticAssignment


class ProxyNPairsLoss(ProxyLoss):
    """Mean over images of log(1 + sum over p- of exp(scale (x.p- - x.p+))) + l2_reg_weight |x|^2.

    p+ is the image's own proxy and p- every other product's; where it owns several, exp(scale x.p+) is their
    sum. Nothing is made unit length: lengths are the model's to choose, and `l2_reg_weight` keeps them in check.
    With unit rows it is `ProxyNCALoss` at half the scale, since d = 2 - 2 x.p. Sibling of `NPairsLoss`, where the
    other images of the batch stand in for the proxies.

    Args:
        num_classes: with embedding_size, assignment and seed, see `ProxyLoss`.
        scale: 1/temperature. The paper has 1, for vectors of any length; the dot products of unit vectors lie in
            [-1, 1], which needs more.
        l2_reg_weight: of the mean squared length of the embeddings.

    Raises:
        BadInputError: settings out of range, an assignment of other products, no negative proxy.

    Source: the (N+1)-tuplet loss and the L2 regularisation of Sohn, Multi-class N-pair loss objective (NIPS 2016),
    with proxies in place of the other images, as eq. 7 of the proxies paper does for any loss.

    Example:
        >>> import torch
        >>> loss = ProxyNPairsLoss(num_classes=3, embedding_size=2, l2_reg_weight=0.002, seed=0)
        >>> bool(loss(torch.eye(2), torch.tensor([0, 2])) > 0)
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
        check_positive(scale, "scale (= 1/temperature)")
        check_not_negative(l2_reg_weight, "l2_reg_weight")
        super().__init__(num_classes, embedding_size, assignment=assignment, seed=seed)
        self.scale, self.l2_reg_weight = scale, l2_reg_weight

    def _loss(self, embeddings: Float[Tensor, "B D"], own: Integer[Tensor, "B M"]) -> Float[Tensor, ""]:
        x = embeddings.float()
        loss = proxy_softmax_mean(self.scale * x, self.bank(), own, unit_proxies=False)
        return loss + self.l2_reg_weight * x.square().sum() / max(len(x), 1) if self.l2_reg_weight else loss
