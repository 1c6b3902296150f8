"""A loss together with the miner that chooses its triplets."""

from __future__ import annotations

from jaxtyping import Float, Integer
from torch import Tensor, nn

from univert.losses.miners.miner import Miner


class MinedLoss(nn.Module):
    """A loss over the triplets of a batch that a miner chooses, as one loss over labels: what a training loop takes.

    Args:
        loss: called with (embeddings, labels, indices_tuple): `TripletMarginLoss`, or one of pytorch-metric-learning's.
        miner: chooses the triplets.

    Example:
        >>> import torch
        >>> from univert.losses.miners.hard_miner import HardMiner
        >>> from univert.losses.triplet_margin_loss import TripletMarginLoss
        >>> loss = MinedLoss(TripletMarginLoss(margin=0.5), HardMiner())
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
        >>> round(loss(embeddings, torch.tensor([0, 0, 1])).item(), 4)
        0.46
    """

    def __init__(self, loss: nn.Module, miner: Miner) -> None:
        super().__init__()
        self.loss, self.miner = loss, miner

    def forward(
        self,
        embeddings: Float[Tensor, "B D"],
        labels: Integer[Tensor, "B"],
        *,
        verticals: Integer[Tensor, "B"] | None = None,
    ) -> Float[Tensor, ""]:
        """The loss of one batch; with `verticals`, negatives are of the anchor's own."""
        value: Tensor = self.loss(embeddings, labels, self.miner(embeddings, labels, verticals))
        return value
