"""Triplet margin loss over all semi-hard triplets of a batch (Unified eq. 1)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.core.distances import squared_distances
from univert.core.errors import BadInputError
from univert.losses.checks import check_embeddings, check_labels


def triplet_margin_loss(
    embeddings: Float[Tensor, "B D"],
    labels: Integer[Tensor, "B"],
    *,
    margin: float = 0.2,
    verticals: Integer[Tensor, "B"] | None = None,
) -> Float[Tensor, ""]:
    """Mean of max(0, margin + D(a,p) - D(a,n)) over every semi-hard triplet of the batch.

    A triplet is an anchor a, a positive p (another image of its product) and a negative n (an image of
    another product *of the same vertical*). It is semi-hard where D(a,p) < D(a,n) < D(a,p) + margin.
    D is the squared Euclidean distance. All triplets count, yet none is listed: for each anchor the
    negatives are sorted once, and the sum over those in a pair's window is a difference of prefix sums,
    so the cost is O(B^2 log B) time and O(B^2) memory rather than B^3.

    Args:
        embeddings: one row an image, usually of unit length.
        labels: the product of each row.
        margin: the wanted gap, in units of squared distance (unit vectors lie at most 4 apart).
        verticals: the vertical of each row; null means all rows share one.

    Returns:
        a scalar; zero, with zero gradients, where the batch holds no semi-hard triplet.

    Raises:
        BadInputError: wrong shapes or dtypes, or a margin that is not positive.

    Source: Unified eq. 1; semi-hard mining after FaceNet (arXiv 1503.03832).
    """
    check_embeddings(embeddings)
    check_labels(labels, embeddings)
    if not margin > 0:
        raise BadInputError(f"margin must be positive, got {margin}")
    same_product = labels[:, None] == labels
    is_negative = ~same_product
    if verticals is not None:
        check_labels(verticals, embeddings, name="verticals")
        is_negative &= verticals[:, None] == verticals
    is_positive = same_product.fill_diagonal_(False)

    distances_BB = squared_distances(embeddings, embeddings)
    negatives_BB = distances_BB.masked_fill(~is_negative, torch.inf).sort(dim=1).values
    with torch.no_grad():
        nearest_BB = torch.searchsorted(negatives_BB, distances_BB, right=True)
        farthest_BB = torch.searchsorted(negatives_BB, distances_BB + margin)
        count_BB = (farthest_BB - nearest_BB).clamp_min(0) * is_positive
        triplets = count_BB.sum()
    # float64: a difference of long prefix sums would lose the small window between them
    finite_BB = negatives_BB.masked_fill(negatives_BB.isinf(), 0).double()
    prefix_BC = nn.functional.pad(finite_BB.cumsum(1), (1, 0))
    window_BB = prefix_BC.gather(1, farthest_BB) - prefix_BC.gather(1, nearest_BB)
    losses_BB = count_BB * (distances_BB.double() + margin) - window_BB * (count_BB > 0)
    return (losses_BB.sum() / triplets.clamp_min(1)).to(distances_BB.dtype)


class TripletMarginLoss(nn.Module):
    """Module form of `triplet_margin_loss`; sibling of `ProxyNCALoss`, which needs no triplets.

    Args:
        margin: the wanted gap, in units of squared distance.

    Example:
        >>> import torch
        >>> loss = TripletMarginLoss(margin=0.2)
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
        >>> round(loss(embeddings, torch.tensor([0, 0, 1])).item(), 4)
        0.0
    """

    def __init__(self, margin: float = 0.2) -> None:
        super().__init__()
        if not margin > 0:
            raise BadInputError(f"margin must be positive, got {margin}")
        self.margin = margin

    def forward(
        self,
        embeddings: Float[Tensor, "B D"],
        labels: Integer[Tensor, "B"],
        verticals: Integer[Tensor, "B"] | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of one batch; see `triplet_margin_loss`."""
        return triplet_margin_loss(embeddings, labels, margin=self.margin, verticals=verticals)
