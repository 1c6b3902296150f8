"""Batch-hard mining: each anchor's farthest positive and nearest negative."""

from __future__ import annotations

import torch

from univert.losses.miners.miner import Block, Miner, Triplets


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

    def mine(self, block: Block) -> Triplets:
        """See `Miner.mine`."""
        is_anchor_R = block.is_positive.any(1) & block.is_negative.any(1)
        anchor_T = is_anchor_R.nonzero().squeeze(1)
        if not len(anchor_T):  # there is no maximum of nothing
            return anchor_T, anchor_T, anchor_T
        distances_TB = block.distances[anchor_T]
        positive_T = distances_TB.masked_fill(~block.is_positive[anchor_T], -torch.inf).argmax(1)
        negative_T = distances_TB.masked_fill(~block.is_negative[anchor_T], torch.inf).argmin(1)
        return anchor_T, positive_T, negative_T
