"""Proxy-Triplet: the hinge of the triplet loss between each image, its proxy and other proxies."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from univert.core.tensors import squared_distances, unit_rows
from univert.losses.batch import check_choice, check_positive
from univert.losses.proxy_loss import ProxyLoss
from univert.losses.streaming import streamed_sum
from univert.proxies.assignment import StaticAssignment

Negatives = Literal["active", "all"]


def proxy_triplet_loss(
    embeddings: Float[Tensor, "B D"],
    proxies: Float[Tensor, "C D"],
    own: Integer[Tensor, "B M"],
    *,
    margin: float = 0.2,
    negatives: Negatives = "active",
) -> Float[Tensor, ""]:
    """Mean over images of the mean over negative proxies of max(0, d(x, p+) + margin - d(x, p-)).

    All rows are first made unit length, d is the squared Euclidean distance, p+ the nearest of the image's own
    proxies (eq. 5), and every other product's proxy a negative one. B x C is never held: the images are
    streamed in chunks.

    `own` are the rows of each image's own proxies, which are not checked. Margin and negatives are those of
    `ProxyTripletLoss`.

    Source: Movshovitz-Attias et al. (arXiv 1703.07464), eq. 3 on proxy triplets, as Algorithm 1 forms them;
    all negative proxies of an anchor at once.
    """

    def term(x_BD: Tensor, own_BM: Tensor, proxies_CD: Tensor) -> Tensor:
        distances_BC = squared_distances(x_BD, proxies_CD)
        positive_B1 = distances_BC.gather(1, own_BM).amin(1, keepdim=True)
        others_BC = distances_BC.scatter(1, own_BM, torch.inf)
        hinge_BC = (positive_B1 + margin - others_BC).clamp_min(0)
        chosen_BC = others_BC.isfinite() if negatives == "all" else hinge_BC > 0
        return ((hinge_BC * chosen_BC).sum(1) / chosen_BC.sum(1).clamp_min(1)).sum()

    total = streamed_sum(term, (unit_rows(embeddings), own), (unit_rows(proxies),))
    return total / max(len(embeddings), 1)


class ProxyTripletLoss(ProxyLoss):
    """Module form of `proxy_triplet_loss` with learned proxies.

    Sibling of `TripletMarginLoss`, which needs two images of a product in the batch, and of `ProxyNCALoss`, the same
    proxies under a soft-max.

    Args:
        num_classes: with embedding_size, assignment and seed, see `ProxyLoss`.
        margin: the wanted gap, in units of squared distance (unit vectors lie at most 4 apart).
        negatives: over which of its negative proxies an image takes the mean: `active`, those inside the margin, so
            that the gradient does not fade as they become few (an image with none counts as zero); or `all`, the
            paper's sum over proxy triplets up to a constant.

    Raises:
        BadInputError: settings out of range, an assignment of other products, no negative proxy.

    Example:
        >>> import torch
        >>> loss = ProxyTripletLoss(num_classes=3, embedding_size=2, margin=0.2, seed=0)
        >>> bool(loss(torch.eye(2), torch.tensor([0, 2])) >= 0)
        True
    """

    def __init__(
        self,
        num_classes: int,
        embedding_size: int,
        margin: float = 0.2,
        *,
        negatives: Negatives = "active",
        assignment: StaticAssignment | None = None,
        seed: int | None = None,
    ) -> None:
        check_positive(margin, "margin")
        check_choice(negatives, Negatives, "negatives")
        super().__init__(num_classes, embedding_size, assignment=assignment, seed=seed)
        self.margin = margin
        self.negatives: Negatives = negatives

    def _loss(self, embeddings: Float[Tensor, "B D"], own: Integer[Tensor, "B M"]) -> Float[Tensor, ""]:
        return proxy_triplet_loss(embeddings, self.bank(), own, margin=self.margin, negatives=self.negatives)
