"""NCA on the images of a batch: each image against its product's others and all other products."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.core.tensors import squared_distances
from univert.losses.batch import Form, check_batch, check_choice, check_positive, negative_mask, positive_mask
from univert.losses.streaming import streamed_sum


def nca_loss(
    embeddings: Float[Tensor, "B D"],
    labels: Integer[Tensor, "B"],
    *,
    softmax_scale: float = 4.0,
    form: Form = "softmax",
) -> Float[Tensor, ""]:
    """Mean of -log( exp(-s d(x, y)) / sum over z of exp(-s d(x, z)) ), y a positive of x, z the negatives.

    d is the squared Euclidean distance, s the scale. With several positives:

    - `softmax`: exp(-s d(x, y)) becomes the sum over all positives y, which are in the sum below the line too: -log of
      the probability that a neighbour drawn by soft-max shows x's product. The mean is over images that have a
      positive. This is the original NCA's probability, in the log form that pytorch-metric-learning takes.
    - `paper`: one term for each pair (x, y), with z the negatives alone, as printed; it can go below zero. The mean is
      over pairs whose x has a negative.

    The distances of some images to all others are held at a time. The value is zero, with zero gradients, where
    no image has a positive (`paper`: and a negative).

    Source: Goldberger et al., Neighbourhood Components Analysis (NIPS 2004); Movshovitz-Attias et al.
    (arXiv 1703.07464), eq. 4.
    """
    positives_B = (labels[:, None] == labels).sum(1) - 1
    if form == "softmax":
        term, count = _softmax_term, (positives_B > 0).sum()
    else:
        term, count = _paper_term, (positives_B * (positives_B + 1 < len(labels))).sum()
    rows_B = torch.arange(len(labels), device=labels.device)
    total = streamed_sum(partial(term, scale=softmax_scale), (embeddings, labels, rows_B), (embeddings, labels))
    return total / count.clamp_min(1)


def _softmax_term(
    x_RD: Tensor, label_R: Tensor, row_R: Tensor, x_BD: Tensor, label_B: Tensor, *, scale: float
) -> Tensor:
    logits_RB = -scale * squared_distances(x_RD, x_BD)
    positive_RB = positive_mask(label_R, label_B, row_R)
    negatives_R = _log_sum(logits_RB, negative_mask(label_R, label_B))
    # an image without positives counts nothing: its empty sum must not be an infinity that breaks the gradient
    alone_R = ~positive_RB.any(1)
    positives_R = _log_sum(logits_RB, positive_RB).masked_fill(alone_R, 0)
    return nn.functional.softplus(negatives_R - positives_R).masked_fill(alone_R, 0).sum()


def _paper_term(x_RD: Tensor, label_R: Tensor, row_R: Tensor, x_BD: Tensor, label_B: Tensor, *, scale: float) -> Tensor:
    logits_RB = -scale * squared_distances(x_RD, x_BD)
    negative_RB = negative_mask(label_R, label_B)
    counted_RB = positive_mask(label_R, label_B, row_R) & negative_RB.any(1, keepdim=True)
    negatives_R = _log_sum(logits_RB, negative_RB)
    return (negatives_R[:, None] - logits_RB).masked_fill(~counted_RB, 0).sum()


def _log_sum(logits_RB: Tensor, mask_RB: Tensor) -> Tensor:
    return logits_RB.masked_fill(~mask_RB, -torch.inf).logsumexp(1)


class NCALoss(nn.Module):
    """Module form of `nca_loss`; its sibling `ProxyNCALoss` needs no positives in the batch.

    Takes pytorch-metric-learning's argument (whose default is 1) and gives its value for embeddings of unit length
    (there the loss normalises them), except that images whose probability is too small for float32 count; there they
    are left out.

    Args:
        softmax_scale: s = 1/temperature, in units of 1 / squared distance. The papers have 1, with which unit vectors
            (at most 4 apart) are hardly told apart.
        form: `softmax` or `paper`.

    Raises:
        BadInputError: a scale that is not positive and finite, an unknown form.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
        >>> round(NCALoss(softmax_scale=1.0)(embeddings, torch.tensor([0, 0, 1])).item(), 4)
        0.6895
    """

    def __init__(self, softmax_scale: float = 4.0, *, form: Form = "softmax") -> None:
        super().__init__()
        check_positive(softmax_scale, "softmax_scale (= 1/temperature)")
        check_choice(form, Form, "form")
        self.softmax_scale = softmax_scale
        self.form: Form = form

    def forward(self, embeddings: Float[Tensor, "B D"], labels: Integer[Tensor, "B"]) -> Float[Tensor, ""]:
        """The loss of one batch; see `nca_loss`."""
        check_batch(embeddings, labels)
        return nca_loss(embeddings, labels, softmax_scale=self.softmax_scale, form=self.form)
