"""Learning from clean triplets, and whether a model that did is worse than before (Unified FIG. 6)."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from univert.core.config import from_plain, to_plain
from univert.core.errors import BadInputError
from univert.data.samplers import Positions, Sampler, UniformSampler
from univert.data.triplets import CleanTriplets
from univert.losses.target_l2_loss import target_l2_loss
from univert.losses.triplet_margin_loss import TripletMarginLoss
from univert.metrics.compare import Comparison, compare_vectors
from univert.metrics.inputs import has_queries
from univert.models.embedder import Embedder
from univert.training.jobs import TrainedModel, TrainingJob
from univert.training.objectives import Objective
from univert.training.run_context import RunContext
from univert.training.triplet_config import TripletsConfig

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TunedGroup:
    """What clean triplets made of a group's model.

    Attributes:
        verticals: of the group.
        triplets: it learned from.
        kept: whether it is not worse than before.
        lost: the galleries and figures in which it is.
        comparison: before and after on the validation images; None without queries, where it is kept.
    """

    verticals: tuple[str, ...]
    triplets: int
    kept: bool
    lost: tuple[str, ...]
    comparison: Comparison | None

    @property
    def note(self) -> str:
        """In a sentence."""
        names = ", ".join(self.verticals)
        what = f"the specialist of {names} learned from {self.triplets:,} clean triplets, too"
        return what if self.kept else f"{what}, but became worse in {'; '.join(self.lost)}, and is as it was"


def tune_groups(
    context: RunContext, grouped: Mapping[str, TrainedModel], clean: CleanTriplets, config: TripletsConfig
) -> tuple[dict[str, TrainedModel], list[TunedGroup]]:
    """Fine-tune each group's model on the triplets of its verticals, and keep it where it is not worse.

    Args:
        context: the run.
        grouped: the model of each vertical's group.
        clean: triplets of all verticals.
        config: the choices.

    Returns:
        the model of each vertical's group from now on, and what became of each group that has triplets.

    Raises:
        TrainingError: see `univert.training.loop.fit`.
    """
    models, tuned = dict(grouped), list[TunedGroup]()
    if elsewhere := len(clean) - len(clean.of(grouped)):
        others = ", ".join(sorted(set(clean.verticals) - set(grouped)))
        _log.warning("%s clean triplets are of %s, which has no specialist: they are not used", elsewhere, others)
    for model in {model.key: model for model in grouped.values()}.values():
        verticals = tuple(name for name, other in grouped.items() if other.key == model.key)
        among = np.any([context.images.of_vertical(name) for name in verticals], axis=0)
        own = clean.of(verticals)
        if not len(own):
            continue
        after = context.stages.train(
            f"tuned/{context.images.folder_of(*verticals)}",
            {"model": model.key, "triplets": own.fingerprint, **learning_choices(config)},
            lambda old=model, own=own, among=among: replace(  # type: ignore[misc]
                triplet_job(context, old.embedder, own, config, among), settings="triplets.loop"
            ),
        )
        record = context.stages.remembered(
            f"compared/{after.name}",
            [after.key, config.tolerance, config.limit],
            lambda old=model, new=after, among=among: {  # type: ignore[misc]
                "val": compare_on_split(context, old.embedder, new.embedder, config, "val", among)
            },
        )
        comparison = record["val"] and from_plain(Comparison, record["val"], where=after.name)
        lost = tuple(losses_of(comparison, config)) if comparison else ()
        tuned.append(
            TunedGroup(verticals=verticals, triplets=len(own), kept=not lost, lost=lost, comparison=comparison)
        )
        if not lost:
            both = {name: model.record[name] + after.record[name] for name in ("image_presentations", "seconds")}
            models |= dict.fromkeys(verticals, replace(after, record=after.record | both))
    return models, tuned


def triplet_job(
    context: RunContext,
    old: Embedder,
    clean: CleanTriplets,
    config: TripletsConfig,
    among: Bool[np.ndarray, "N"] | None = None,
) -> TrainingJob:
    """What a copy of a model learns from triplets, held to its own old embeddings of other images `among` those."""
    old.eval()

    @torch.no_grad()  # the old model learns nothing
    def embed(positions: Positions, views: Positions) -> Float[Tensor, "B D"]:
        return context.features.source.embed(old, positions, views).float()

    others = context.images.is_train if among is None else context.images.is_train & among
    sampler = TripletSampler(
        clean, np.flatnonzero(others), batch_size=config.loop.batch_size, share=config.others, seed=context.recipe.seed
    )
    return TrainingJob(
        embedder=copy.deepcopy(old),
        objective=CleanTripletObjective(sampler.triplets_per_batch, margin=config.margin, keep=config.keep, old=embed),
        sampler=sampler,
        loop=config.loop,
        among=among,
        starts_trained=True,
    )


def compare_on_split(
    context: RunContext,
    old: Embedder,
    new: Embedder,
    config: TripletsConfig,
    split: str,
    among: Bool[np.ndarray, "N"] | None = None,
) -> Comparison | None:
    """Before and after on the images of a split, all or those `among` them; None where it has no queries."""
    images, source = context.images, context.features.source
    positions = np.flatnonzero((images.splits == split) & (True if among is None else among))
    if not has_queries(images.products[positions]):
        return None
    return compare_vectors(
        source.embed_all(old, positions),
        source.embed_all(new, positions),
        images.products[positions],
        images.names_of(positions),
        queries=images.asking(positions),
        unseen_brands=images.of_unseen_brands[positions],
        tolerance=config.tolerance,
        seed=context.recipe.seed,
    )


def learning_choices(config: TripletsConfig) -> dict[str, Any]:
    """The choices that the weights depend on."""
    only_compared = ("tolerance", "limit", "file", "on_bad")
    return {name: value for name, value in to_plain(config).items() if name not in only_compared}


def losses_of(comparison: Comparison, config: TripletsConfig) -> list[str]:
    """The galleries and figures in which a model is worse than before."""
    return [f"{gallery}, {one.metric}" for gallery, one in comparison.losses(config.limit)]


class TripletSampler(Sampler):
    """All anchors of a batch first, then all positives, all negatives, then a share of other images.

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

    For `margin` and `keep` see `TripletsConfig`; `old` embeds positions in views by the model as it was.
    """

    def __init__(
        self, triplets_per_batch: int, *, margin: float, keep: float, old: Callable[[Positions, Positions], Tensor]
    ) -> None:
        super().__init__()
        self._loss = TripletMarginLoss(margin)
        self._count, self._keep, self._old = triplets_per_batch, keep, old

    def forward(self, embeddings: Float[Tensor, "B D"], positions: Positions, views: Positions) -> Float[Tensor, ""]:
        """The loss of a batch of `TripletSampler`."""
        T = self._count
        rows = torch.arange(T, device=embeddings.device)
        nothing = rows.new_zeros(3 * T)  # labels, which listed triplets do not need
        value: Tensor = self._loss(embeddings[: 3 * T], nothing, (rows, rows + T, rows + 2 * T))
        if self._keep and len(positions) > 3 * T:
            old = self._old(positions[3 * T :], views[3 * T :])
            value = value + self._keep * target_l2_loss(embeddings[3 * T :], old)
        return value
