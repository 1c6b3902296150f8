"""Triplet margin loss over all triplets of a batch, or those worth learning from."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from univert.core.tensors import squared_distances
from univert.losses.batch import (
    Distance,
    Triplets,
    check_choice,
    check_positive,
    define_operator,
    negative_mask,
    plain_distances,
)
from univert.losses.label_loss import Batch, Known, LabelLoss, Pairs, list_triplets

Mining = Literal["semi-hard", "all", "hard"]

CHUNK_ENTRIES = 1 << 18  # of the distances of some anchors to all rows: a chunk's matrices stay in the cache


def triplet_margin_loss(
    embeddings: Float[Tensor, "B D"],
    labels: Integer[Tensor, "B"],
    *,
    margin: float = 0.2,
    mining: Mining = "semi-hard",
    distance: Distance = "squared",
    verticals: Integer[Tensor, "B"] | None = None,
) -> Float[Tensor, ""]:
    """Mean of margin + d(a,p) - d(a,n) over the mined triplets of the batch for which it is above zero.

    A triplet is an anchor a, a positive p (another image of its product) and a negative n (an image of
    another product *of the same vertical*). All that the mining admits count, yet none is listed: for each anchor
    the ends of its positives' windows are sorted, each negative is looked up among them, and the loss and
    its gradient need only how many triplets each pair is in. So the cost is O(B^2 log B) time rather than B^3, and
    the memory some anchors' distances rather than all.

    The settings are those of `TripletMarginLoss`; without `verticals` all rows share one. The value is differentiable
    once; zero, with zero gradients, where no triplet has a loss.

    Source: Song et al., Learning unified embedding for apparel recognition (arXiv 1707.05929), eq. 1. Semi-hard:
    FaceNet (arXiv 1503.03832). Hard, and the mean over what is above zero: Hermans et al. (arXiv 1703.07737).
    """
    plain, differentiable = distance == "plain", torch.is_grad_enabled() and embeddings.requires_grad
    total, count, _ = _mined_triplets(embeddings.float(), labels, verticals, margin, mining, plain, differentiable)
    mean: Tensor = total / count.clamp_min(1)
    return mean.float()


def _list_mined(distances_AR: Tensor, pairs: Pairs, margin: float, mining: str) -> Triplets:
    """The triplets of some pairs that the mining admits, where they are needed one by one."""
    positive_AR, negative_AR = pairs
    if mining == "hard":
        nothing_AR, inf = torch.zeros_like(positive_AR), torch.inf
        farthest_A1 = distances_AR.masked_fill(~positive_AR, -inf).argmax(1, keepdim=True)
        nearest_A1 = distances_AR.masked_fill(~negative_AR, inf).argmin(1, keepdim=True)
        positive_AR = positive_AR & nothing_AR.scatter(1, farthest_A1, True)
        negative_AR = negative_AR & nothing_AR.scatter(1, nearest_A1, True)
    anchor_T, positive_T, negative_T = list_triplets((positive_AR, negative_AR))
    gap_T = distances_AR[anchor_T, positive_T] - distances_AR[anchor_T, negative_T]
    kept_T = (gap_T < 0) & (gap_T + margin > 0) | (mining != "semi-hard")
    return anchor_T[kept_T], positive_T[kept_T], negative_T[kept_T]


def _mined(
    x: Tensor, labels: Tensor, verticals: Tensor | None, margin: float, mining: str, plain: bool, differentiable: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of the losses (float64), number of triplets that have one, and the sum's gradient by x (if wanted).

    With C[i, j] the number of triplets that have (i, j) as their positive pair less those that have it as their
    negative pair, the sum is margin * triplets + sum over i, j of C[i, j] d(i, j).
    """
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    triplets = torch.zeros((), dtype=torch.int64, device=x.device)
    grad = torch.zeros_like(x)
    same_BK, missing_BK = _same_product(labels)
    step = max(1, CHUNK_ENTRIES // max(len(x), 1))
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        with torch.autocast(x.device.type, enabled=False):
            distances_RB = squared_distances(x[part], x)
            if plain:
                distances_RB.sqrt_()
            negative_RB = negative_mask(
                labels[part], labels, *(() if verticals is None else (verticals[part], verticals))
            )
            other_RB = distances_RB.masked_fill(~negative_RB, torch.inf)
            own_RK, missing_RK = distances_RB.gather(1, same_BK[part]), missing_BK[part]
            if mining == "hard":
                positives_RK, negatives_RB = _hardest_counts(own_RK, missing_RK, other_RB, margin)
            else:
                positives_RK, negatives_RB = _window_counts(
                    own_RK, missing_RK, other_RB, margin, semi_hard=mining == "semi-hard"
                )
            triplets += positives_RK.sum(dtype=torch.int64)
            counts_RB = negatives_RB.neg_().scatter_add_(1, same_BK[part], positives_RK)
            total += torch.mul(counts_RB, distances_RB, out=other_RB).sum(dtype=torch.float64)
            if differentiable:
                if plain:  # the slope of the root; 0 where it is infinite
                    counts_RB.div_(distances_RB.mul_(2)).masked_fill_(distances_RB == 0, 0)
                grad.addcmul_(counts_RB.sum(0)[:, None], x, value=2).addmm_(counts_RB.T, x[part], alpha=-2)
                grad[part].addcmul_(counts_RB.sum(1)[:, None], x[part], value=2).addmm_(counts_RB, x, alpha=-2)
    return total + margin * triplets, triplets, grad


def _same_product(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of the product of each row (B x the largest product), and which of these to leave out.

    Left out are the row itself and, in products smaller than the largest, what fills the line.
    """
    order = labels.argsort(stable=True)
    sizes_P = labels[order].unique_consecutive(return_counts=True)[1]
    size_B, first_B = torch.empty_like(order), torch.empty_like(order)
    size_B[order] = sizes_P.repeat_interleave(sizes_P)
    first_B[order] = (sizes_P.cumsum(0) - sizes_P).repeat_interleave(sizes_P)
    member_K = torch.arange(int(sizes_P.max()) if len(labels) else 0, device=labels.device)
    same_BK = order[(first_B[:, None] + member_K).clamp_max_(len(labels) - 1)]
    itself_BK = same_BK == torch.arange(len(labels), device=labels.device)[:, None]
    return same_BK, itself_BK | (member_K >= size_B[:, None])


def _window_counts(
    own_RK: Tensor, missing_RK: Tensor, other_RB: Tensor, margin: float, *, semi_hard: bool
) -> tuple[Tensor, Tensor]:
    """In how many triplets each positive and each negative of each anchor is.

    The negatives of a positive lie in a window of distances: below its own + margin; where semi-hard, above
    its own. All windows' ends are sorted together; negatives between two neighbouring ends share their windows.
    """
    beyond_RK = own_RK.nextafter(own_RK.new_tensor(torch.inf))
    start_RK = beyond_RK if semi_hard else torch.full_like(own_RK, -torch.inf)
    ends_RE = torch.cat([start_RK, torch.maximum(own_RK + margin, beyond_RK)], 1)
    ends_RE, order_RE = ends_RE.masked_fill_(missing_RK.repeat(1, 2), torch.inf).sort(1)
    passed_RB = torch.searchsorted(ends_RE, other_RB, right=True)  # how many ends lie at or below the distance
    # sums of integers: exact, and the same on every run on every device
    opens_RE = torch.where(order_RE < own_RK.shape[1], 1, -1)
    open_RF = nn.functional.pad(opens_RE.cumsum(1), (1, 0))  # windows that are open after so many ends
    others_RF = torch.zeros_like(open_RF).scatter_add_(1, passed_RB, opens_RE.new_ones(()).expand_as(passed_RB))
    below_RE = torch.empty_like(order_RE).scatter_(1, order_RE, others_RF.cumsum(1)[:, :-1])
    below_start_RK, below_end_RK = below_RE.to(own_RK.dtype).chunk(2, 1)
    return below_end_RK - below_start_RK, open_RF.to(own_RK.dtype).gather(1, passed_RB)


def _hardest_counts(own_RK: Tensor, missing_RK: Tensor, other_RB: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """The farthest positive and the nearest negative of each anchor make one triplet; there is no other."""
    farthest_R1, positive_R1 = own_RK.masked_fill(missing_RK, -torch.inf).max(1, keepdim=True)
    nearest_R1, negative_R1 = other_RB.min(1, keepdim=True)
    counted_R1 = (nearest_R1 < farthest_R1 + margin).to(own_RK.dtype)
    positives_RK = torch.zeros_like(own_RK).scatter_(1, positive_R1, counted_R1)
    return positives_RK, torch.zeros_like(other_RB).scatter_(1, negative_R1, counted_R1)


def _mined_shapes(x: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty((), dtype=torch.float64), x.new_empty((), dtype=torch.int64), torch.empty_like(x)


def _keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[2])


@once_differentiable
def _scale_gradient(ctx: Any, by_total: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    (grad,) = ctx.saved_tensors
    return (grad * by_total.to(grad.dtype), *[None] * 6)


_mined_triplets = define_operator(
    "mined_triplets(Tensor x, Tensor labels, Tensor? verticals, float margin, str mining, bool plain, "
    "bool differentiable) -> (Tensor, Tensor, Tensor)",
    _mined,
    _mined_shapes,
)
torch.library.register_autograd(_mined_triplets, _scale_gradient, setup_context=_keep_gradient)


class TripletMarginLoss(LabelLoss):
    """Module form of `triplet_margin_loss`; sibling of `ProxyNCALoss`, which needs no triplets.

    Differs from pytorch-metric-learning's in its defaults (margin 0.2, semi-hard triplets, squared distances), and in
    that it does not normalise the embeddings; with `mining="all", distance=LpDistance()` it is theirs.

    Triplets in `indices_tuple`, or all those that its pairs make, are exactly those that count, whatever the mining.
    These, reference rows, `swap`, `smooth_loss` and `MeanReducer` list the triplets and take as much memory.

    Args:
        margin: the wanted gap, in units of the distance (unit vectors lie at most 4 apart squared, 2 plain).
        swap: take the negative's distance to the anchor or to the positive, whichever is smaller.
        smooth_loss: log(1 + exp(.)) of what is else cut off at zero; then all mined triplets count.
        mining: `semi-hard`: negatives in d(a,p) < d(a,n) < d(a,p) + margin (FaceNet); `all`: every triplet;
            `hard`: one triplet an anchor, of its farthest positive and its nearest negative (batch-hard).
        distance: `squared` Euclidean, or `plain`; or one of pytorch-metric-learning's, see `LabelLoss`.
        sums: see `LabelLoss`. `reducer=MeanReducer()` takes the mean over all mined triplets.

    Raises:
        BadInputError: a margin that is not positive and finite, an unknown mining or distance.

    Example:
        >>> import torch
        >>> loss = TripletMarginLoss(margin=0.5, mining="all")
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
        >>> round(loss(embeddings, torch.tensor([0, 0, 1])).item(), 4)
        0.46
    """

    takes = ("indices_tuple", "ref_emb", "verticals")
    distances: ClassVar = {
        Known.PLAIN: 1.0,
        Known.SQUARED: 1.0,
        Known.COSINE: 0.5,
        Known.PLAIN_AS_IS: None,
        Known.SQUARED_AS_IS: None,
    }
    reducers = ("AvgNonZeroReducer", "MeanReducer")

    def __init__(
        self,
        margin: float = 0.2,
        swap: bool = False,
        smooth_loss: bool = False,
        *,
        mining: Mining = "semi-hard",
        distance: Distance | Any = "squared",
        **sums: Any,
    ) -> None:
        named = isinstance(distance, str)
        super().__init__(distance=None if named else distance, **sums)
        check_positive(margin, "margin")
        check_choice(mining, Mining, "mining")
        if named:
            check_choice(distance, Distance, "distance")
        else:
            distance = "plain" if self._distance in (Known.PLAIN, Known.PLAIN_AS_IS) else "squared"
        self.margin, self.swap, self.smooth_loss = margin, swap, smooth_loss
        self.mining: Mining = mining
        self.distance: Distance = distance

    def _value(self, batch: Batch) -> Float[Tensor, ""]:
        x, others, over_all = batch.embeddings, batch.references, self._reducer == "MeanReducer"
        if batch.indices is None and others is None and not (self.swap or self.smooth_loss or over_all):
            settings: dict[str, Any] = {"margin": self.margin, "mining": self.mining, "distance": self.distance}
            return triplet_margin_loss(x, batch.labels, verticals=batch.verticals, **settings)
        distances_AR = self._distances(x, x if others is None else others)
        if batch.indices is None:
            anchor_T, positive_T, negative_T = _list_mined(distances_AR, batch.pairs(), self.margin, self.mining)
        elif len(batch.indices) == 3:
            anchor_T, positive_T, negative_T = batch.indices
        else:
            anchor_T, positive_T, negative_T = list_triplets(batch.pairs())
        near_T, far_T = _at(distances_AR, anchor_T, positive_T), _at(distances_AR, anchor_T, negative_T)
        if self.swap:
            distances_RR = distances_AR if others is None else self._distances(others, others)
            far_T = torch.minimum(far_T, _at(distances_RR, positive_T, negative_T))
        violations_T = near_T - far_T + self.margin
        losses_T = nn.functional.softplus(violations_T) if self.smooth_loss else violations_T.relu()
        counted_T = torch.ones_like(losses_T) if over_all else losses_T > 0
        return losses_T.sum() / counted_T.sum().clamp_min(1)

    def _distances(self, rows: Tensor, others: Tensor) -> Tensor:
        squared = squared_distances(rows, others)
        return plain_distances(squared) if self.distance == "plain" else squared


def _at(matrix: Tensor, row_T: Tensor, column_T: Tensor) -> Tensor:
    """Some entries of a matrix; their gradients are added up in the same order on every run."""
    return matrix.flatten().index_select(0, row_T * matrix.shape[1] + column_T)
