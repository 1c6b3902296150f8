"""Fine-tuning on clean triplets: the choices, the batches and the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Interval
from jaxtyping import Float
from torch import Tensor

from univert.core.config import refuse_without_effect
from univert.core.errors import BadInputError
from univert.data.samplers import Positions, Sampler, UniformSampler
from univert.data.triplets import CleanTriplets
from univert.losses.target_l2_loss import target_l2_loss
from univert.losses.triplet_margin_loss import TripletMarginLoss
from univert.metrics.compare import LARGE_LOSS
from univert.training.label_config import BaseNetworkLearns, Count, LoopConfig, NotNegative, Positive
from univert.training.objectives import Objective
from univert.training.recipe import DataConfig

EmbedViews = Callable[[Positions, Positions], Float[Tensor, "B D"]]
"""From positions and views to embeddings."""


@dataclass(frozen=True, kw_only=True)
class TripletLoopConfig(LoopConfig):
    """`LoopConfig` with the defaults of a fine-tuning: short, with small learning rates."""

    epochs: Count = 10
    min_steps: Count = 100
    learning_rate: Positive = 3e-4
    base_network_learning_rate: Positive = 1e-5
    patience: Count = 10


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Fine-tuning on clean triplets.

    Attributes:
        seed: of everything random.
        base_network_learns: `no`, `last_blocks` or `all`.
        last_blocks: how many of the base network's last blocks learn where `base_network_learns` is
            `last_blocks`.
        maps_gb: see `Recipe.maps_gb`.
        data: which verticals, and how images reach the network.
        margin: the wanted gap between D(a,n) and D(a,p), squared (Unified eq. 1).
        keep: weight of the L2 term that holds the model to its own old embeddings; 0 switches it off.
        others: share of each batch that is training images at random, on which the L2 term works; batch normalisation
            sees them, too.
        tolerance: on the validation images, a loss of up to this much (0.01: one point of Recall@1) is none.
        limit: a loss beyond this counts even where so few products show it that chance is not ruled out.
        loop: the training; `epochs` counts passes over the triplets.
    """

    seed: Annotated[int, Ge(0)] = 0
    base_network_learns: BaseNetworkLearns = "no"
    last_blocks: Count = 2
    maps_gb: NotNegative = 8.0
    data: DataConfig = field(default_factory=DataConfig)
    margin: Positive = 0.2
    keep: NotNegative = 2.0
    others: Annotated[float, Interval(ge=0, le=0.9)] = 0.5
    tolerance: Annotated[float, Interval(ge=0, lt=1)] = 0.01
    limit: Annotated[float, Interval(ge=0, le=1)] = LARGE_LOSS
    loop: TripletLoopConfig = field(default_factory=TripletLoopConfig)

    def __post_init__(self) -> None:
        if self.base_network_learns != "last_blocks":
            refuse_without_effect(
                self,
                ("last_blocks", "maps_gb"),
                where="",
                because=f'where base_network_learns is "{self.base_network_learns}"',
            )
        if self.keep and not self.others:
            raise BadInputError(
                f"keep has no effect without other images, got keep {self.keep} and others 0; set others, or keep = 0"
            )


class TripletSampler(Sampler):
    """Triplets and, beside them, other images: all anchors first, then all positives, all negatives, the others.

    Args:
        triplets: each comes at most once an epoch, in a new order.
        others: positions of the images to draw from.
        batch_size: images a batch, at most.
        share: of the batch that is other images.
        seed: of the order.

    Attributes:
        triplets_per_batch: how many.

    Raises:
        BadInputError: no triplets, or a batch too small for one.
    """

    def __init__(
        self, triplets: CleanTriplets, others: Positions, *, batch_size: int = 128, share: float = 0.5, seed: int = 0
    ) -> None:
        count = int(batch_size * share) if len(others) else 0
        if batch_size - count < 3:
            raise BadInputError(
                f"batch_size must leave room for a triplet, got {batch_size} with a share of {share} other images"
            )
        self._table = np.stack([triplets.anchors, triplets.positives, triplets.negatives])
        rows = np.arange(len(triplets))
        self._rows = UniformSampler(rows, batch_size=(batch_size - count) // 3, seed=seed)
        self._others = UniformSampler(others, batch_size=count, seed=seed) if count else None
        self.triplets_per_batch = self._rows.batch_size
        self.batch_size = 3 * self.triplets_per_batch + (self._others.batch_size if self._others else 0)
        self.steps_per_epoch = self._rows.steps_per_epoch

    def batch(self, step: int) -> Positions:
        """Positions of step `step`."""
        chosen = self._table[:, self._rows.batch(step)].ravel()
        return np.concatenate([chosen, self._others.batch(step)]) if self._others else chosen


class CleanTripletObjective(Objective):
    """The triplet loss of exactly the given triplets, plus L2 to the old embeddings of the other images.

    Args:
        triplets_per_batch: as the sampler has them.
        margin: of the triplet loss.
        keep: weight of the L2 term.
        old: embeddings by the model as it was, of positions in views.
    """

    def __init__(self, triplets_per_batch: int, *, margin: float, keep: float, old: EmbedViews) -> None:
        super().__init__()
        self._loss = TripletMarginLoss(margin)
        self._count, self._keep, self._old = triplets_per_batch, keep, old

    def forward(self, embeddings: Float[Tensor, "B D"], positions: Positions, views: Positions) -> Float[Tensor, ""]:
        """The loss of a batch of `TripletSampler`."""
        T = self._count
        rows = torch.arange(T, device=embeddings.device)
        shown = embeddings[: 3 * T]
        nothing = rows.new_zeros(3 * T)  # labels, which listed triplets do not need
        value: Tensor = self._loss(shown, nothing, (rows, rows + T, rows + 2 * T))
        if self._keep and len(positions) > 3 * T:
            old = self._old(positions[3 * T :], views[3 * T :])
            value = value + self._keep * target_l2_loss(embeddings[3 * T :], old)
        return value
