"""In-batch miners: which triplets of a batch a loss should look at, and the loss that looks at them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, Integer
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.core.tensors import squared_distances, unit_rows
from univert.losses.batch import Distance, Triplets, check_batch, check_choice, check_positive, negative_mask
from univert.losses.label_loss import Batch, LabelLoss

ANCHORS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some anchors of a batch against all of its rows: squared distances and which are which; `size` is D."""

    size: int
    distances: Float[Tensor, "R B"]
    is_positive: Bool[Tensor, "R B"]
    is_negative: Bool[Tensor, "R B"]

    def pairs(self) -> tuple[Int64[Tensor, "P"], Int64[Tensor, "P"], Int64[Tensor, "P"]]:
        """Anchors and positives of the pairs whose anchor has a negative, and the place of each among its anchor's."""
        is_pair_RB = self.is_positive & self.is_negative.any(1, keepdim=True)
        anchor_P, positive_P = is_pair_RB.nonzero(as_tuple=True)
        count_R = is_pair_RB.sum(1)
        first_R = count_R.cumsum(0) - count_R
        return anchor_P, positive_P, torch.arange(len(anchor_P), device=anchor_P.device) - first_R[anchor_P]


class Miner(nn.Module, ABC):
    """Called with a batch, gives rows of it as (anchors, positives, negatives), as pytorch-metric-learning's do.

    Distances are computed in float32, also under autocast. Memory is O(1024 B) beside the triplets themselves.
    """

    def forward(
        self,
        embeddings: Float[Tensor, "B D"],
        labels: Integer[Tensor, "B"],
        *,
        verticals: Integer[Tensor, "B"] | None = None,
    ) -> Triplets:
        """The triplets of one batch: three vectors of equal length, empty where it holds none.

        Given the vertical of each row, a negative is one of the same vertical.

        Raises:
            BadInputError: wrong shapes or dtypes.
        """
        check_batch(embeddings, labels, verticals)
        parts = [[torch.empty(0, dtype=torch.long, device=embeddings.device)] * 3]
        with torch.no_grad(), torch.autocast(embeddings.device.type, enabled=False):
            points = self._points(embeddings.detach())
            for rows_R in torch.arange(len(points), device=points.device).split(ANCHORS_AT_ONCE):
                own_verticals = None if verticals is None else verticals[rows_R]
                anchors, positives, negatives = self._mine(
                    Block(
                        size=points.shape[1],
                        distances=squared_distances(points[rows_R], points),
                        is_positive=(labels[rows_R, None] == labels).scatter(1, rows_R[:, None], False),
                        is_negative=negative_mask(labels[rows_R], labels, own_verticals, verticals),
                    )
                )
                parts.append([rows_R[anchors], positives, negatives])
        anchors, positives, negatives = map(torch.cat, zip(*parts, strict=True))
        return anchors, positives, negatives

    def _points(self, embeddings: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """The rows between which distances are taken."""
        return embeddings.float()

    @abstractmethod
    def _mine(self, block: Block) -> Triplets:
        """The triplets of some anchors, which are counted from the start of the block."""


class HardMiner(Miner):
    """For each anchor that has both, the farthest positive and the nearest negative of the batch.

    The hardest triplets carry the largest gradients, and the mislabelled images: on noisy labels, or from a random
    start, prefer `SemiHardMiner` or `DistanceWeightedMiner`, or all embeddings may collapse to one point.
    pytorch-metric-learning's `BatchHardMiner` is the same.

    Source: Hermans et al. (arXiv 1703.07737), eq. 5.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
        >>> anchors, positives, negatives = HardMiner()(embeddings, torch.tensor([0, 0, 1, 2]))
        >>> anchors.tolist(), positives.tolist(), negatives.tolist()
        ([0, 1], [1, 0], [2, 2])
    """

    def _mine(self, block: Block) -> Triplets:
        is_anchor_R = block.is_positive.any(1) & block.is_negative.any(1)
        anchor_T = is_anchor_R.nonzero().squeeze(1)
        if not len(anchor_T):  # there is no maximum of nothing
            return anchor_T, anchor_T, anchor_T
        distances_TB = block.distances[anchor_T]
        positive_T = distances_TB.masked_fill(~block.is_positive[anchor_T], -torch.inf).argmax(1)
        negative_T = distances_TB.masked_fill(~block.is_negative[anchor_T], torch.inf).argmin(1)
        return anchor_T, positive_T, negative_T


class SemiHardMiner(Miner):
    """For each anchor-positive pair the nearest negatives with D(a,p) < D(a,n) < D(a,p) + margin.

    `TripletMarginLoss` alone averages over *all* semi-hard triplets, and needs no miner for that; this one keeps the
    most telling negatives of each pair, or hands semi-hard triplets to another loss. The negatives of an anchor
    are sorted once and a pair's are a window of them: O(B^2 log B) time.

    Args:
        margin: width of the window, in units of the distance; that of the loss.
        negatives_per_pair: how many negatives a pair gets at most, nearest first; None for all in the window, as
            pytorch-metric-learning's `TripletMarginMiner(type_of_triplets="semihard")` gives.
        distance: `squared` Euclidean, or `plain`; that of the loss.

    Raises:
        BadInputError: a margin that is not positive and finite, an unknown distance, or fewer than one negative a pair.

    Source: FaceNet (arXiv 1503.03832), section 3.2.

    Example:
        >>> import torch
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
        >>> anchors, positives, negatives = SemiHardMiner(margin=0.5)(embeddings, torch.tensor([0, 0, 1, 2]))
        >>> anchors.tolist(), positives.tolist(), negatives.tolist()
        ([0, 1], [1, 0], [2, 3])
    """

    def __init__(
        self, margin: float = 0.2, *, negatives_per_pair: int | None = 1, distance: Distance = "squared"
    ) -> None:
        super().__init__()
        check_positive(margin, "margin")
        check_choice(distance, Distance, "distance")
        if negatives_per_pair is not None and negatives_per_pair < 1:
            raise BadInputError(f"negatives_per_pair must be at least 1 (or None: all), got {negatives_per_pair}")
        self.margin, self.negatives_per_pair = margin, negatives_per_pair
        self.distance: Distance = distance

    def _mine(self, block: Block) -> Triplets:
        anchor_P, positive_P, place_P = block.pairs()
        if not len(anchor_P):
            return anchor_P, anchor_P, anchor_P
        distances_RB = block.distances.sqrt() if self.distance == "plain" else block.distances
        near_RB, column_RB = distances_RB.masked_fill(~block.is_negative, torch.inf).sort(dim=1)
        own_RJ = distances_RB.new_full((len(near_RB), int(place_P.max()) + 1), torch.inf)
        own_RJ[anchor_P, place_P] = distances_RB[anchor_P, positive_P]
        first_RJ = torch.searchsorted(near_RB, own_RJ, right=True)
        count_RJ = torch.searchsorted(near_RB, own_RJ + self.margin) - first_RJ
        count_P = count_RJ[anchor_P, place_P].clamp(0, self.negatives_per_pair)
        pair_T = torch.arange(len(count_P), device=count_P.device).repeat_interleave(count_P)
        rank_T = torch.arange(len(pair_T), device=pair_T.device) - (count_P.cumsum(0) - count_P)[pair_T]
        anchor_T = anchor_P[pair_T]
        return anchor_T, positive_P[pair_T], column_RB[anchor_T, first_RJ[anchor_T, place_P[pair_T]] + rank_T]


def log_inverse_density(squared_distances: Float[Tensor, "..."], size: int, *, cutoff: float) -> Float[Tensor, "..."]:
    """Log of 1/q(d), in float64: how rare a distance is between random points of the unit sphere in `size` dimensions.

    q(d) is proportional to d^(D-2) (1 - d^2/4)^((D-3)/2). Distances below `cutoff` count as that one.

    Source: Wu et al. (arXiv 1706.07567), section 4.
    """
    squared = squared_distances.double().clamp_min(cutoff**2)
    # 1e-12: opposite points have density 0 and would weigh infinitely much (or nothing, for D < 3)
    rest = (1 - squared / 4).clamp_min(1e-12)
    return (2 - size) / 2 * squared.log() - (size - 3) / 2 * rest.log()


class DistanceWeightedMiner(Miner):
    """One negative for each anchor-positive pair, drawn with probability proportional to 1/q(D(a,n)).

    q is the density of distances between random points of the sphere, so that draws spread over all distances up
    to the limit; uniform draws would nearly all be about 1.4 away, where triplets teach nothing. The weights are
    normalised for each anchor by itself. An anchor whose negatives are all beyond the limit draws evenly from them,
    and so does one whose negatives all coincide. Embeddings are first made unit length.

    Args:
        cutoff: smaller distances count as this one, or the few nearest negatives would get all the weight.
        nonzero_loss_cutoff: negatives at least this far away are not drawn while there are nearer ones.
        generator: of the draws, on the embeddings' device; None takes torch's own, which the training loop seeds at
            each step.

    Raises:
        BadInputError: unless 0 < cutoff < nonzero_loss_cutoff <= 2.

    Source: Wu et al., "Sampling matters in deep embedding learning" (arXiv 1706.07567), section 4. Both cut-offs are
    plain (not squared) distances, with pytorch-metric-learning's names and defaults.

    Example:
        >>> import torch
        >>> embeddings = torch.eye(4) + torch.tensor([1.0, 0.0, 0.0, 0.0])
        >>> miner = DistanceWeightedMiner(generator=torch.Generator().manual_seed(0))
        >>> anchors, positives, negatives = miner(embeddings, torch.tensor([0, 0, 1, 1]))
        >>> anchors.tolist(), positives.tolist()
        ([0, 1, 2, 3], [1, 0, 3, 2])
    """

    def __init__(
        self, cutoff: float = 0.5, nonzero_loss_cutoff: float = 1.4, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if not 0 < cutoff < nonzero_loss_cutoff <= 2:
            raise BadInputError(
                f"0 < cutoff < nonzero_loss_cutoff <= 2 must hold, got {cutoff} and {nonzero_loss_cutoff}; try 0.5, 1.4"
            )
        self.cutoff, self.nonzero_loss_cutoff = cutoff, nonzero_loss_cutoff
        self._generator = generator

    def _points(self, embeddings: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        return unit_rows(embeddings)

    def _mine(self, block: Block) -> Triplets:
        anchor_T, positive_T, place_T = block.pairs()
        if not len(anchor_T):
            return anchor_T, anchor_T, anchor_T
        in_reach_RB = block.is_negative & (block.distances < self.nonzero_loss_cutoff**2)
        log_RB = log_inverse_density(block.distances, block.size, cutoff=self.cutoff)
        log_RB.masked_fill_(~in_reach_RB, -torch.inf)
        weights_RB = (log_RB - log_RB.amax(1, keepdim=True)).exp()
        weights_RB = torch.where(in_reach_RB.any(1, keepdim=True), weights_RB, block.is_negative.double())
        weights_RB.masked_fill_(~block.is_negative.any(1, keepdim=True), 1.0)  # of no pair: nobody looks at its draws
        draws = int(place_T.max()) + 1
        negative_RJ = torch.multinomial(weights_RB, draws, replacement=True, generator=self._generator)
        return anchor_T, positive_T, negative_RJ[anchor_T, place_T]


class MinedLoss(LabelLoss):
    """A loss over the triplets of a batch that a miner chooses, as one loss over labels: what a training loop takes.

    Args:
        loss: called with (embeddings, labels, indices_tuple): `TripletMarginLoss`, or one of pytorch-metric-learning's.
        miner: chooses the triplets.

    Example:
        >>> import torch
        >>> from univert.losses import TripletMarginLoss
        >>> loss = MinedLoss(TripletMarginLoss(margin=0.5), HardMiner())
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
        >>> round(loss(embeddings, torch.tensor([0, 0, 1])).item(), 4)
        0.46
    """

    takes = ("verticals",)

    def __init__(self, loss: nn.Module, miner: Miner) -> None:
        super().__init__()
        self.loss, self.miner = loss, miner

    def _value(self, batch: Batch) -> Float[Tensor, ""]:
        triplets = self.miner(batch.embeddings, batch.labels, verticals=batch.verticals)
        value: Tensor = self.loss(batch.embeddings, batch.labels, triplets)
        return value
