"""Distance-weighted sampling: negatives from all distances alike, not from where most of the sphere lies."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from univert.core.errors import BadInputError
from univert.core.tensors import unit_rows
from univert.losses.miners.miner import Block, Miner, Triplets

_UNITS = 2.0**40


def log_inverse_density(squared_distances: Float[Tensor, "..."], size: int, *, cutoff: float) -> Float[Tensor, "..."]:
    """Log of 1/q(d), in float64: how rare a distance is between random points of the unit sphere in `size` dimensions.

    q(d) is proportional to d^(D-2) (1 - d^2/4)^((D-3)/2). For large D nearly all pairs are sqrt(2) apart.

    Args:
        squared_distances: d^2, in [0, 4].
        size: D.
        cutoff: smaller distances d count as this one.

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
        generator: of the draws; None takes torch's own, which the training loop seeds at each step.

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
        if not 0 < cutoff < nonzero_loss_cutoff <= 2:
            raise BadInputError(
                "0 < cutoff < nonzero_loss_cutoff <= 2 must hold (the sphere's diameter is 2), "
                f"got {cutoff} and {nonzero_loss_cutoff}; try 0.5 and 1.4"
            )
        self.cutoff, self.nonzero_loss_cutoff = cutoff, nonzero_loss_cutoff
        self._generator = generator

    def points(self, embeddings: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """The embeddings at unit length: q is the density on the sphere."""
        return unit_rows(embeddings)

    def mine(self, block: Block) -> Triplets:
        """See `Miner.mine`."""
        anchor_T, positive_T, place_T = block.pairs()
        if not len(anchor_T):
            return anchor_T, anchor_T, anchor_T
        negative_RJ = self._draw(self.weights(block), int(place_T.max()) + 1)
        return anchor_T, positive_T, negative_RJ[anchor_T, place_T]

    def weights(self, block: Block) -> Float[Tensor, "R B"]:
        """What each row weighs as a negative of each anchor: at most 1, the heaviest exactly 1 (float64).

        An anchor without negatives has zeros.
        """
        in_reach_RB = block.is_negative & (block.distances < self.nonzero_loss_cutoff**2)
        log_RB = log_inverse_density(block.distances, block.size, cutoff=self.cutoff)
        log_RB.masked_fill_(~in_reach_RB, -torch.inf)
        weights_RB = (log_RB - log_RB.amax(1, keepdim=True)).exp()
        return torch.where(in_reach_RB.any(1, keepdim=True), weights_RB, block.is_negative.double())

    def _draw(self, weights_RB: Float[Tensor, "R B"], draws: int) -> Int64[Tensor, "R J"]:
        # In whole units sums are exact in any order: a row of weight zero is never drawn, and every device agrees.
        upper_RB = (weights_RB * _UNITS).round().long().cumsum(1)
        total_R1 = upper_RB[:, -1:]
        device = weights_RB.device if self._generator is None else self._generator.device
        shape = (len(weights_RB), draws)
        uniform_RJ = torch.rand(shape, dtype=torch.float64, generator=self._generator, device=device)
        unit_RJ = (uniform_RJ.to(weights_RB.device) * total_R1).long()
        unit_RJ = torch.minimum(unit_RJ, total_R1 - 1)
        return torch.searchsorted(upper_RB, unit_RJ, right=True)
