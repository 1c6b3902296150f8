"""Lifted structure: each positive pair against the negatives of both its ends (Song et al. 2016)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.core.distances import squared_distances
from univert.core.errors import BadInputError
from univert.losses.checks import check_embeddings, check_labels
from univert.losses.pairs import negative_mask, plain_distances, positive_mask


def lifted_structure_loss(
    embeddings: Float[Tensor, "B D"],
    labels: Integer[Tensor, "B"],
    *,
    neg_margin: float = 1.0,
    pos_margin: float = 0.0,
) -> Float[Tensor, ""]:
    """Half the mean over positive pairs (i, j) of max(0, J_ij)^2, J_ij the pair's cost against its nearest negatives.

        J_ij = log( sum over k of exp(neg_margin - d_ik) + sum over l of exp(neg_margin - d_jl) ) + d_ij - pos_margin

    with k and l the negatives of i and j, and d the plain Euclidean distance. The sum over an image's negatives is made
    once and shared by all its pairs: O(B^2) time and memory, where listing costs positive times negative pairs.

    Args:
        embeddings: one row an image, usually of unit length; the loss does not normalise.
        labels: the product of each row.
        neg_margin: alpha of the paper, in units of distance. On unit vectors (d at most 2) it shifts all of J.
        pos_margin: a distance that positives may keep for free.

    Returns:
        a float32 scalar; zero, with zero gradients, where the batch has no positive pair or no negative.

    Raises:
        BadInputError: wrong shapes or dtypes, a margin that is not finite.

    Source: Song et al., Deep metric learning via lifted structured feature embedding, arXiv 1511.06452, eq. 4.
    """
    check_embeddings(embeddings)
    check_labels(labels, embeddings)
    check_lifted_structure(neg_margin, pos_margin)
    with torch.autocast(embeddings.device.type, enabled=False):
        distances_BB = plain_distances(squared_distances(embeddings, embeddings))
    positive_BB, negative_BB = positive_mask(labels, labels), negative_mask(labels, labels)
    counted_BB = positive_BB & negative_BB.any(1, keepdim=True)
    negatives_B = (neg_margin - distances_BB).masked_fill(~negative_BB, -torch.inf).logsumexp(1)
    # without negatives no pair counts: the empty sum must not be an infinity that breaks the gradient
    negatives_B = negatives_B.masked_fill(~negative_BB.any(1), 0)
    costs_BB = torch.logaddexp(negatives_B[:, None], negatives_B) + distances_BB - pos_margin
    squares_BB = costs_BB.masked_fill(~counted_BB, 0).relu().square()
    return squares_BB.sum() / (2 * positive_BB.sum().clamp_min(1))


def check_lifted_structure(neg_margin: float, pos_margin: float) -> None:
    """Refuse margins that are not numbers.

    Raises:
        BadInputError: naming the margin.
    """
    for name, margin in (("neg_margin", neg_margin), ("pos_margin", pos_margin)):
        if not math.isfinite(margin):
            raise BadInputError(f"{name} must be finite, got {margin}")


class LiftedStructureLoss(nn.Module):
    """Module form of `lifted_structure_loss`.

    Takes pytorch-metric-learning's arguments and gives its value for embeddings of unit length (there the loss
    normalises them).

    Args:
        neg_margin: the margin of negatives, in units of distance.
        pos_margin: the distance that positives may keep for free.

    Raises:
        BadInputError: a margin that is not finite.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
        >>> round(LiftedStructureLoss()(embeddings, torch.tensor([0, 0, 1])).item(), 4)
        1.5896
    """

    def __init__(self, neg_margin: float = 1.0, pos_margin: float = 0.0) -> None:
        super().__init__()
        check_lifted_structure(neg_margin, pos_margin)
        self.neg_margin, self.pos_margin = neg_margin, pos_margin

    def forward(self, embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, "B"]) -> Float[Tensor, ""]:
        """The loss of one batch; see `lifted_structure_loss`."""
        return lifted_structure_loss(
            embeddings, labels, neg_margin=self.neg_margin, pos_margin=self.pos_margin
        )
