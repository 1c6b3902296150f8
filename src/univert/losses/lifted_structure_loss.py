"""Lifted structure: each positive pair against the negatives of both its ends (Song et al. 2016)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.core.tensors import squared_distances
from univert.losses.batch import check_batch, check_positive, negative_mask, plain_distances


def lifted_structure_loss(
    embeddings: Float[Tensor, "B D"],
    labels: Integer[Tensor, "B"],
    *,
    neg_margin: float = 1.0,
    pos_margin: float = 0.0,
    scale: float = 16.0,
) -> Float[Tensor, ""]:
    """Half the mean over positive pairs (i, j) of max(0, J_ij)^2, J_ij the pair's cost against its nearest negatives.

        J_ij = log( sum over k of exp(s (neg_margin - d_ik)) + sum over l of exp(s (neg_margin - d_jl)) ) / s
               + d_ij - pos_margin

    with k and l the negatives of i and j, d the plain Euclidean distance and s the scale. The sum over an image's
    negatives is made once and shared by all its pairs: O(B^2) time and memory, where listing costs positive times
    negative pairs.

    The value is zero, with zero gradients, where the batch has no positive pair or no negative.

    Source: Song et al., Deep metric learning via lifted structured feature embedding, arXiv 1511.06452, eq. 4.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        distances_BB = plain_distances(squared_distances(embeddings, embeddings))
    negative_BB = negative_mask(labels, labels)
    positive_BB = (~negative_BB).fill_diagonal_(False)
    counted_BB = positive_BB & negative_BB.any(1, keepdim=True)
    negatives_B = (scale * (neg_margin - distances_BB)).masked_fill(~negative_BB, -torch.inf).logsumexp(1)
    # without negatives no pair counts: the empty sum must not be an infinity that breaks the gradient
    negatives_B = negatives_B.masked_fill(~negative_BB.any(1), 0)
    costs_BB = torch.logaddexp(negatives_B[:, None], negatives_B) / scale + distances_BB - pos_margin
    squares_BB = costs_BB.masked_fill(~counted_BB, 0).relu().square()
    return squares_BB.sum() / (2 * positive_BB.sum().clamp_min(1))


class LiftedStructureLoss(nn.Module):
    """Module form of `lifted_structure_loss`.

    Takes pytorch-metric-learning's arguments. With `scale=1`, the paper's, it gives its value for embeddings of unit
    length (there the loss normalises them).

    Args:
        neg_margin: alpha of the paper, in units of distance.
        pos_margin: a distance that positives may keep for free.
        scale: s = 1/temperature, in units of 1 / distance: how close the smooth maximum over the negatives is to the
            nearest alone. The paper has 1, for vectors of any length. Unit vectors lie at most 2 apart: with 1 all
            negatives weigh about the same, and the loss tells near from far no better than their mean.

    Raises:
        BadInputError: a margin that is not finite, a scale that is not positive and finite.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
        >>> round(LiftedStructureLoss(scale=1.0)(embeddings, torch.tensor([0, 0, 1])).item(), 4)
        1.5896
    """

    def __init__(self, neg_margin: float = 1.0, pos_margin: float = 0.0, *, scale: float = 16.0) -> None:
        super().__init__()
        for name, margin in (("neg_margin", neg_margin), ("pos_margin", pos_margin)):
            if not math.isfinite(margin):
                raise BadInputError(f"{name} must be finite, got {margin}")
        check_positive(scale, "scale (= 1/temperature)")
        self.neg_margin, self.pos_margin, self.scale = neg_margin, pos_margin, scale

    def forward(self, embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, "B"]) -> Float[Tensor, ""]:
        """The loss of one batch; see `lifted_structure_loss`."""
        check_batch(embeddings, labels)
        return lifted_structure_loss(
            embeddings, labels, neg_margin=self.neg_margin, pos_margin=self.pos_margin, scale=self.scale
        )
