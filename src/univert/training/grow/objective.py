"""The loss of a growth: reproduce the targets, and leave the neighbourhoods of the stored vectors as they are."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from univert.losses.target_l2_loss import target_l2_loss
from univert.training.objectives import Objective
from univert.training.view_arrays import Positions, Rows, ViewArrays


class GrowthObjective(Objective):
    """L2 to the learning targets (Unified eq. 2), and the same view of the neighbourhood.

    L2 treats an error across the stored vectors like one along them, though only the latter changes what a query finds.
    `neighbourhood_loss` compares what the embedding sees of them with what the target sees.

    Args:
        targets: the learning target of every image and view.
        stored: (M, D) stored vectors of old verticals.
        neighbours_weight: of the second term; 0 switches it off.
        temperature: of the second term.
    """

    stored: Tensor

    def __init__(self, targets: ViewArrays, stored: Rows, *, neighbours_weight: float, temperature: float) -> None:
        super().__init__()
        self._targets, self._weight, self._temperature = targets, neighbours_weight, temperature
        self.register_buffer("stored", torch.from_numpy(stored), persistent=False)

    def forward(self, embeddings: Float[Tensor, "B D"], positions: Positions, views: Positions) -> Float[Tensor, ""]:
        """The loss of the images at `positions`, shown in `views`."""
        targets = torch.from_numpy(self._targets.gather(positions, views)).to(embeddings.device)
        loss = target_l2_loss(embeddings, targets)
        if self._weight:
            loss = loss + self._weight * neighbourhood_loss(
                embeddings, targets, self.stored, temperature=self._temperature
            )
        return loss


def neighbourhood_loss(
    embeddings: Float[Tensor, "B D"], targets: Float[Tensor, "B D"], stored: Float[Tensor, "M D"], *, temperature: float
) -> Float[Tensor, ""]:
    """Mean over images of KL(p || q): p the target's and q the embedding's softmax of cosine over `stored`.

    Args:
        embeddings: unit rows.
        targets: unit rows; no gradient flows to them.
        stored: unit rows.
        temperature: of the softmax (scale = 1 / temperature).
    """
    seen = functional.log_softmax(embeddings @ stored.T / temperature, dim=1)
    wanted = functional.log_softmax(targets.detach() @ stored.T / temperature, dim=1)
    return functional.kl_div(seen, wanted, reduction="batchmean", log_target=True)
