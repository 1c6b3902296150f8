"""What a deployed model learns when it grows: to embed a new vertical, and every old image as it was stored."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from univert.data.samplers import Sampler, UniformSampler, step_rng
from univert.metrics.ranking import rank_queries
from univert.models.embedder import Embedder
from univert.training.grow.config import GrowConfig
from univert.training.grow.objective import GrowthObjective
from univert.training.jobs import TrainingJob
from univert.training.run_context import RunContext
from univert.training.view_arrays import Positions, Rows, ViewArrays

_NEIGHBOURS_SEED = 3


def stored_score(context: RunContext, embedder: Embedder, stored: Rows) -> Callable[[], float] | None:
    """MAP@R over the labelled validation images in the gallery of the grown index; None without queries.

    Args:
        context: of the growth.
        embedder: scored as it stands at each call.
        stored: (N, D) vectors in the index, zero for the new vertical.
    """
    chosen = context.images.validation_queries
    if chosen is None:
        return None
    labels, kept = context.images.products[chosen], stored[chosen]
    is_old = kept.any(axis=1, keepdims=True)

    def score() -> float:
        queries = context.features.source.embed_all(embedder, chosen)
        gallery = np.where(is_old, kept, queries)
        outcome = rank_queries(queries, labels, gallery_vectors=gallery, leave_one_out=True)
        assert outcome.average_precision_at_r is not None
        return float(outcome.average_precision_at_r.mean())

    return score


class GrowthSampler(Sampler):
    """So many images of the new vertical in each batch, and of the old ones; each kind once in its own epoch.

    Args:
        new: positions of the new vertical's images.
        old: positions of all others.
        new_share: of a batch, above 0 and below 1.
        batch_size: at least 2.
        seed: of the order.
    """

    def __init__(self, new: Positions, old: Positions, *, new_share: float, batch_size: int, seed: int) -> None:
        count = min(max(1, round(new_share * batch_size)), batch_size - 1)
        self._parts = [
            UniformSampler(new, batch_size=count, seed=seed),
            UniformSampler(old, batch_size=batch_size - count, seed=seed),
        ]
        self.batch_size = sum(part.batch_size for part in self._parts)
        self.steps_per_epoch = max(1, (len(new) + len(old)) // self.batch_size)

    def batch(self, step: int) -> Positions:
        """Positions of step `step`, the new vertical's first."""
        return np.concatenate([part.batch(step) for part in self._parts])


def growth_job(
    context: RunContext, vertical: str, *, deployed: Embedder, targets: ViewArrays, stored: Rows, config: GrowConfig
) -> TrainingJob:
    """The job of the grown model.

    Args:
        context: of the growth.
        vertical: the new one.
        deployed: the model that grows.
        targets: see `growth_targets`.
        stored: see `stored_score`.
        config: the choices.
    """
    usable = context.images.is_train if config.unlabelled else context.images.is_train & (context.images.products >= 0)
    positions = np.flatnonzero(usable)
    seed = context.recipe.seed
    embedder = _new_model(context, deployed)
    if config.warm_start:
        embedder.load_state_dict(deployed.state_dict())
    old = positions[~context.images.of_vertical(vertical)[positions]]
    if len(old) > config.neighbours_images:
        old = np.sort(step_rng(seed, _NEIGHBOURS_SEED).choice(old, config.neighbours_images, replace=False))
    return TrainingJob(
        embedder=embedder,
        objective=GrowthObjective(
            targets,
            targets.clean(old),
            neighbours_weight=config.neighbours_weight,
            temperature=config.neighbours_temperature,
        ),
        sampler=_sampler(context, vertical, positions, config),
        loop=config.loop,
        score=stored_score(context, embedder, stored),
    )


def _sampler(context: RunContext, vertical: str, positions: Positions, config: GrowConfig) -> Sampler:
    seed, batch_size = context.recipe.seed, config.loop.batch_size
    if not config.new_share:
        return UniformSampler(positions, batch_size=batch_size, seed=seed)
    is_new = context.images.of_vertical(vertical)[positions]
    return GrowthSampler(
        *(positions[is_new], positions[~is_new]), new_share=config.new_share, batch_size=batch_size, seed=seed
    )


def _new_model(context: RunContext, deployed: Embedder) -> Embedder:
    """An untrained model with a head like the deployed one's, whatever the recipe says."""
    config = deployed.config
    return context.new_embedder(
        size=config.size,
        hidden_sizes=config.hidden_sizes,
        batch_norm=config.batch_norm,
        dropout=config.dropout,
        pooling=config.pooling,
    )
