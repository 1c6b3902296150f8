"""Lifted structure: each positive pair against the negatives of both its ends (Song et al. 2016)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from univert.core.errors import BadInputError
from univert.core.tensors import squared_distances
from univert.losses.batch import check_positive, plain_distances
from univert.losses.label_loss import Batch, Known, LabelLoss


def lifted_structure_loss(
    embeddings: Float[Tensor, "B D"],
    labels: Integer[Tensor, "B"],
    *,
    neg_margin: float = 1.0,
    pos_margin: float = 0.0,
    scale: float = 16.0,
    batch: Batch | None = None,
) -> Float[Tensor, ""]:
    """Half the mean over positive pairs (i, j) of max(0, J_ij)^2, J_ij the pair's cost against its nearest negatives.

        J_ij = log( sum over k of exp(s (neg_margin - d_ik)) + sum over l of exp(s (neg_margin - d_jl)) ) / s
               + d_ij - pos_margin

    with k and l the negatives of i and j, d the plain Euclidean distance and s the scale. The sum over an image's
    negatives is made once and shared by all its pairs: O(B^2) time and memory, where listing costs positive times
    negative pairs.

    A `batch` may bring reference rows, among which positives and negatives of a row are then found, and those of a
    reference among the rows; or the pairs to look at.

    The value is zero, with zero gradients, where the batch has no positive pair or no negative.

    Source: Song et al., Deep metric learning via lifted structured feature embedding, arXiv 1511.06452, eq. 4.
    """
    batch = batch or Batch(embeddings=embeddings, labels=labels)
    references, (positive_AR, negative_AR) = batch.references, batch.pairs()
    with torch.autocast(embeddings.device.type, enabled=False):
        distances_AR = plain_distances(squared_distances(embeddings, embeddings if references is None else references))
    logits_AR = (scale * (neg_margin - distances_AR)).masked_fill(~negative_AR, -torch.inf)
    of_rows_A, alone_A = logits_AR.logsumexp(1), ~negative_AR.any(1)
    of_others_R, alone_R = (of_rows_A, alone_A) if references is None else (logits_AR.logsumexp(0), ~negative_AR.any(0))
    # a row without negatives counts nothing: its empty sum must not be an infinity that breaks the gradient
    of_rows_A, of_others_R = of_rows_A.masked_fill(alone_A, 0), of_others_R.masked_fill(alone_R, -torch.inf)
    costs_AR = torch.logaddexp(of_rows_A[:, None], of_others_R) / scale + distances_AR - pos_margin
    squares_AR = costs_AR.masked_fill(~positive_AR | alone_A[:, None], 0).relu().square()
    return squares_AR.sum() / (2 * positive_AR.sum().clamp_min(1))


class LiftedStructureLoss(LabelLoss):
    """Module form of `lifted_structure_loss`.

    Takes pytorch-metric-learning's arguments. With `scale=1`, the paper's, it gives its value for embeddings of unit
    length (there the loss normalises them; here it does with `distance=LpDistance()`).

    Args:
        neg_margin: alpha of the paper, in units of distance.
        pos_margin: a distance that positives may keep for free.
        common: see `LabelLoss`.
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

    takes = ("indices_tuple", "ref_emb")
    distances: ClassVar = {Known.PLAIN: 1.0, Known.PLAIN_AS_IS: None}

    def __init__(self, neg_margin: float = 1.0, pos_margin: float = 0.0, *, scale: float = 16.0, **common: Any) -> None:
        super().__init__(**common)
        for name, margin in (("neg_margin", neg_margin), ("pos_margin", pos_margin)):
            if not math.isfinite(margin):
                raise BadInputError(f"{name} must be finite, got {margin}")
        check_positive(scale, "scale (= 1/temperature)")
        self.neg_margin, self.pos_margin, self.scale = neg_margin, pos_margin, scale

    def _value(self, batch: Batch) -> Float[Tensor, ""]:
        return lifted_structure_loss(
            batch.embeddings,
            batch.labels,
            neg_margin=self.neg_margin,
            pos_margin=self.pos_margin,
            scale=self.scale,
            batch=batch,
        )
