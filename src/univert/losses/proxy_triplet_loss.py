"""Proxy-Triplet: the hinge of the triplet loss between each image, its proxy and other proxies (Proxies eq. 3)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.core.tensors import squared_distances, unit_rows
from univert.losses.assigned import checked_assigned, checked_assignment
from univert.losses.checks import check_positive
from univert.losses.streaming import streamed_sum
from univert.proxies.assignment import StaticAssignment
from univert.proxies.bank import ProxyBank

Negatives = Literal["active", "all", "semi-hard", "hardest"]


def proxy_triplet_loss(
    embeddings: Float[Tensor, "B D"],
    proxies: Float[Tensor, "C D"],
    assigned: Integer[Tensor, "B M"] | Integer[Tensor, "B"],
    *,
    margin: float = 0.2,
    negatives: Negatives = "active",
    chunk_rows: int | None = None,
) -> Float[Tensor, ""]:
    """Mean over images of the mean over negative proxies of max(0, d(x, p+) + margin - d(x, p-)).

    All rows are first made unit length, d is the squared Euclidean distance, p+ the nearest of the image's own
    proxies (eq. 5), and every other product's proxy a negative one. B x C is never held: the images are
    streamed in chunks.

    Args:
        embeddings: one row an image.
        proxies: one row a proxy.
        assigned: the rows of each image's own proxies, one or M of them.
        margin: the wanted gap, in units of squared distance (unit vectors lie at most 4 apart).
        negatives: over which of its negative proxies an image takes the mean:
            `active`: those inside the margin, so that the gradient does not fade as they become few;
            `all`: every one, the document's sum over proxy triplets up to a constant;
            `semi-hard`: those with d(x, p+) < d(x, p-) < d(x, p+) + margin;
            `hardest`: the nearest alone.
            An image with none counts as zero.
        chunk_rows: images a chunk; None chooses.

    Raises:
        BadInputError: wrong shapes or dtypes, an assignment outside the proxies, a margin that is not positive,
            an unknown choice of negatives, fewer than two proxies.

    Source: Proxies eq. 3 on proxy triplets, as Algorithm 1 forms them; all negative proxies of an anchor at once.
    """
    assigned_BM = checked_assigned(assigned, embeddings, proxies, loss="Proxy-Triplet")
    check_proxy_triplet(margin, negatives)

    def term(x_BD: Tensor, own_BM: Tensor, proxies_CD: Tensor) -> Tensor:
        distances_BC = squared_distances(x_BD, proxies_CD)
        positive_B1 = distances_BC.gather(1, own_BM).amin(1, keepdim=True)
        others_BC = distances_BC.scatter(1, own_BM, torch.inf)
        if negatives == "hardest":
            others_BC = others_BC.amin(1, keepdim=True)
        hinge_BC = (positive_B1 + margin - others_BC).clamp_min(0)
        chosen_BC = others_BC.isfinite() if negatives in ("all", "hardest") else hinge_BC > 0
        if negatives == "semi-hard":
            chosen_BC &= others_BC > positive_B1
        return ((hinge_BC * chosen_BC).sum(1) / chosen_BC.sum(1).clamp_min(1)).sum()

    total = streamed_sum(term, (unit_rows(embeddings), assigned_BM), (unit_rows(proxies),), chunk_rows=chunk_rows)
    return total / max(len(embeddings), 1)


def check_proxy_triplet(margin: float, negatives: str) -> None:
    """Refuse settings with which Proxy-Triplet means nothing.

    Raises:
        BadInputError: a margin that is not positive and finite, an unknown choice of negatives.
    """
    check_positive(margin, "margin")
    if negatives not in get_args(Negatives):
        raise BadInputError(f"negatives must be one of {', '.join(get_args(Negatives))}; got {negatives!r}")


class ProxyTripletLoss(nn.Module):
    """Module form of `proxy_triplet_loss` with learned proxies.

    The proxies are parameters: hand `parameters()` to the optimiser, with a learning rate well above the
    network's. Sibling of `TripletMarginLoss`, which needs two images of a product in the batch, and of
    `ProxyNCALoss`, the same proxies under a soft-max.

    Args:
        num_classes: how many products there are; labels run from 0 to `num_classes - 1`.
        embedding_size: D.
        margin: the wanted gap, in units of squared distance.
        negatives: `active`, `all`, `semi-hard` or `hardest`.
        assignment: which proxies belong to which product; None: one each. Fewer proxies than products, and
            several a product, are both fine.
        seed: of the random initial proxies.

    Raises:
        BadInputError: settings out of range, an assignment of other products, no negative proxy.

    Example:
        >>> import torch
        >>> loss = ProxyTripletLoss(num_classes=3, embedding_size=2, margin=0.2, seed=0)
        >>> value = loss(torch.eye(2), torch.tensor([0, 2]))
        >>> bool(value >= 0)
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
        super().__init__()
        check_proxy_triplet(margin, negatives)
        self.assignment = checked_assignment(assignment, num_classes, loss="Proxy-Triplet")
        self.bank = ProxyBank(self.assignment.count, embedding_size, seed=seed)
        self.margin = margin
        self.negatives: Negatives = negatives

    def forward(self, embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, "B"]) -> Float[Tensor, ""]:
        """The loss of one batch; `labels` are products."""
        assigned = self.assignment(labels)
        return proxy_triplet_loss(embeddings, self.bank(), assigned, margin=self.margin, negatives=self.negatives)
