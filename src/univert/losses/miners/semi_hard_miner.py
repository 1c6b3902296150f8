"""Semi-hard mining: negatives beyond the positive, yet within the margin (FaceNet)."""

from __future__ import annotations

import torch

from univert.core.errors import BadInputError
from univert.losses.miners.miner import Block, Miner, Triplets
from univert.losses.triplet_margin_loss import Distance, check_triplet_margin


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
        check_triplet_margin(margin, "semi-hard", distance)
        if negatives_per_pair is not None and negatives_per_pair < 1:
            raise BadInputError(
                f"negatives_per_pair must be at least 1, got {negatives_per_pair}; None gives all of them"
            )
        self.margin, self.negatives_per_pair = margin, negatives_per_pair
        self.distance: Distance = distance

    def mine(self, block: Block) -> Triplets:
        """See `Miner.mine`."""
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
