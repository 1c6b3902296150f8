"""N-pairs on the images of a batch: each positive pair's dot product against those with other products (Sohn 2016)."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.losses.batch import check_choice, check_not_negative, check_positive
from univert.losses.label_loss import Batch, Known, LabelLoss
from univert.losses.streaming import streamed_sum

Pairs = Literal["all", "one"]


def n_pairs_loss(
    embeddings: Float[Tensor, "B D"],
    labels: Integer[Tensor, "B"],
    *,
    l2_reg_weight: float = 0.0,
    pairs: Pairs = "all",
    scale: float = 8.0,
) -> Float[Tensor, ""]:
    """Mean over pairs (a, p) of log(1 + sum over n of exp(scale (a.n - a.p))), plus l2_reg_weight times mean |x|^2.

    The settings are those of `NPairsLoss`. Without a positive pair the regulariser alone is left.

    Source: Sohn, Improved deep metric learning with multi-class N-pair loss objective (NIPS 2016), eq. 6-7.
    """
    positive_BB, negative_BB = Batch(embeddings=embeddings, labels=labels).pairs()
    if pairs == "one":
        place_B = positive_BB.tril().sum(1)  # how many rows of its product come before
        positive_BB &= (place_B == 0)[:, None] & (place_B == 1)
        negative_BB &= place_B == 1
    total = streamed_sum(partial(_term, scale=scale), (embeddings, positive_BB, negative_BB), (embeddings,))
    loss = total / positive_BB.sum().clamp_min(1)
    if l2_reg_weight > 0:
        loss = loss + l2_reg_weight * embeddings.float().square().sum() / max(len(embeddings), 1)
    return loss


def _term(x_RD: Tensor, positive_RB: Tensor, negative_RB: Tensor, x_BD: Tensor, *, scale: float) -> Tensor:
    logits_RB = scale * (x_RD @ x_BD.T)
    negatives_R1 = logits_RB.masked_fill(~negative_RB, -torch.inf).logsumexp(1, keepdim=True)
    return nn.functional.softplus(negatives_R1 - logits_RB).masked_fill(~positive_RB, 0).sum()


class NPairsLoss(LabelLoss):
    """Module form of `n_pairs_loss`; its sibling `ProxyNPairsLoss` needs no pairs in the batch.

    Does not normalise: the paper leaves lengths free and keeps them in check by the regulariser. With `pairs="one"` and
    `scale=1` it gives pytorch-metric-learning's value for embeddings of unit length (there the loss normalises them;
    here it does with `distance=CosineSimilarity()`).

    Args:
        l2_reg_weight: of the mean squared length of the embeddings; nothing to gain on unit rows.
        pairs: `all`: every ordered pair of one product, n any image of another product, which makes use of all
            images of a batch with several a product. `one`: the paper's batch: the first two images of each
            product are its a and p, and n the p of the other products.
        scale: 1/temperature. The paper has 1, for vectors of any length; the dot products of unit vectors lie in
            [-1, 1], which needs more.
        common: see `LabelLoss`.

    Raises:
        BadInputError: settings out of range.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
        >>> round(NPairsLoss(scale=1.0)(embeddings, torch.tensor([0, 0, 1])).item(), 4)
        0.6872
    """

    distances: ClassVar = {Known.COSINE: 1.0, Known.DOT_AS_IS: None}

    def __init__(self, *, l2_reg_weight: float = 0.0, pairs: Pairs = "all", scale: float = 8.0, **common: Any) -> None:
        super().__init__(**common)
        check_not_negative(l2_reg_weight, "l2_reg_weight")
        check_choice(pairs, Pairs, "pairs")
        check_positive(scale, "scale (= 1/temperature)")
        self.l2_reg_weight, self.scale = l2_reg_weight, scale
        self.pairs: Pairs = pairs

    def _value(self, batch: Batch) -> Float[Tensor, ""]:
        x, y = batch.embeddings, batch.labels
        return n_pairs_loss(x, y, l2_reg_weight=self.l2_reg_weight, pairs=self.pairs, scale=self.scale)
