"""NCA on the images of a batch: each image against its product's others and all other products."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.core.tensors import squared_distances
from univert.losses.batch import Form, check_choice, check_positive
from univert.losses.label_loss import Batch, Known, LabelLoss
from univert.losses.streaming import streamed_sum


def nca_loss(
    embeddings: Float[Tensor, "B D"],
    labels: Integer[Tensor, "B"],
    *,
    softmax_scale: float = 4.0,
    form: Form = "softmax",
    batch: Batch | None = None,
) -> Float[Tensor, ""]:
    """Mean of -log( exp(-s d(x, y)) / sum over z of exp(-s d(x, z)) ), y a positive of x, z the negatives.

    d is the squared Euclidean distance, s the scale. With several positives:

    - `softmax`: exp(-s d(x, y)) becomes the sum over all positives y, which are in the sum below the line too: -log of
      the probability that a neighbour drawn by soft-max shows x's product. The mean is over images that have a
      positive. This is the original NCA's probability, in the log form that pytorch-metric-learning takes.
    - `paper`: one term for each pair (x, y), with z the negatives alone, as printed; it can go below zero. The mean is
      over pairs whose x has a negative.

    A `batch` may bring reference rows, among which y and z are then sought, or the pairs to look at.
    The distances of some images to all others are held at a time. The value is zero, with zero gradients, where
    no image has a positive (`paper`: and a negative).

    Source: Goldberger et al., Neighbourhood Components Analysis (NIPS 2004); Movshovitz-Attias et al.
    (arXiv 1703.07464), eq. 4.
    """
    batch = batch or Batch(embeddings=embeddings, labels=labels)
    positive_AR, negative_AR = batch.pairs()
    if form == "softmax":
        term, count = _softmax_term, positive_AR.any(1).sum()
    else:
        term, count = _paper_term, (positive_AR.sum(1) * negative_AR.any(1)).sum()
    references = embeddings if batch.references is None else batch.references
    rows = (embeddings, positive_AR, negative_AR)
    total = streamed_sum(partial(term, scale=softmax_scale), rows, (references,))
    return total / count.clamp_min(1)


def _softmax_term(x_AD: Tensor, positive_AR: Tensor, negative_AR: Tensor, y_RD: Tensor, *, scale: float) -> Tensor:
    logits_AR = -scale * squared_distances(x_AD, y_RD)
    # an image without positives counts nothing: its empty sum must not be an infinity that breaks the gradient
    alone_A = ~positive_AR.any(1)
    positives_A = _log_sum(logits_AR, positive_AR).masked_fill(alone_A, 0)
    return nn.functional.softplus(_log_sum(logits_AR, negative_AR) - positives_A).masked_fill(alone_A, 0).sum()


def _paper_term(x_AD: Tensor, positive_AR: Tensor, negative_AR: Tensor, y_RD: Tensor, *, scale: float) -> Tensor:
    logits_AR = -scale * squared_distances(x_AD, y_RD)
    counted_AR = positive_AR & negative_AR.any(1, keepdim=True)
    return (_log_sum(logits_AR, negative_AR)[:, None] - logits_AR).masked_fill(~counted_AR, 0).sum()


def _log_sum(logits_AR: Tensor, mask_AR: Tensor) -> Tensor:
    return logits_AR.masked_fill(~mask_AR, -torch.inf).logsumexp(1)


class NCALoss(LabelLoss):
    """Module form of `nca_loss`; its sibling `ProxyNCALoss` needs no positives in the batch.

    Takes pytorch-metric-learning's argument (whose default is 1) and gives its value for embeddings of unit length
    (there the loss normalises them; here it does with `distance=LpDistance(power=2)`), except that images whose
    probability is too small for float32 count; there they are left out.

    Args:
        softmax_scale: s = 1/temperature, in units of 1 / squared distance. The papers have 1, with which unit vectors
            (at most 4 apart) are hardly told apart.
        form: `softmax` or `paper`.
        common: see `LabelLoss`.

    Raises:
        BadInputError: a scale that is not positive and finite, an unknown form.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
        >>> round(NCALoss(softmax_scale=1.0)(embeddings, torch.tensor([0, 0, 1])).item(), 4)
        0.6895
    """

    takes = ("indices_tuple", "ref_emb")
    distances: ClassVar = {Known.SQUARED: 1.0, Known.SQUARED_AS_IS: None, Known.COSINE: 0.5}

    def __init__(self, softmax_scale: float = 4.0, *, form: Form = "softmax", **common: Any) -> None:
        super().__init__(**common)
        check_positive(softmax_scale, "softmax_scale (= 1/temperature)")
        check_choice(form, Form, "form")
        self.softmax_scale = softmax_scale
        self.form: Form = form

    def _value(self, batch: Batch) -> Float[Tensor, ""]:
        return nca_loss(batch.embeddings, batch.labels, softmax_scale=self.softmax_scale, form=self.form, batch=batch)
