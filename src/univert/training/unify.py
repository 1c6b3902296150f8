"""Unify: one model that reproduces the learning targets of all verticals (Unified eq. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from univert.core.config import to_plain
from univert.data.samplers import UniformSampler
from univert.losses.target_l2_loss import TargetL2Loss
from univert.models.embedder import Embedder
from univert.training.features import ROWS_AT_ONCE
from univert.training.jobs import TrainedModel, TrainingJob
from univert.training.label_training import label_job
from univert.training.objectives import EmbedAll, MovedRows, Objective, TargetObjective
from univert.training.run_context import RunContext
from univert.training.targets.config import UnifyConfig
from univert.training.targets.joined_head import joined_embedder
from univert.training.targets.learning_targets import learning_targets, vertical_weights
from univert.training.targets.map import fit_target_map
from univert.training.targets.members import Member
from univert.training.view_arrays import Positions


def train_unified(context: RunContext, members: Sequence[Member], *, name: str, config: UnifyConfig) -> TrainedModel:
    """Train (or load) a unified model by L2 loss on the learning targets.

    Args:
        context: the run.
        members: whose embeddings the targets join.
        name: the folder within the run.
        config: the recipe's, or a variation of it.

    Raises:
        BadInputError: a vertical has no specialist or no training images.
    """
    return context.stages.train(
        name,
        {"members": [member.key for member in members], **_own_settings(config)},
        lambda: _job(context, members, config),
    )


def polish(
    context: RunContext, unified: TrainedModel, members: Sequence[Member], *, name: str, config: UnifyConfig
) -> TrainedModel:
    """Train (or load) what a unified model becomes when a loss on product labels joins the L2 loss at the end.

    Args:
        context: the run.
        unified: as the L2 loss left it.
        members: of its targets.
        name: the folder within the run.
        config: `config.polish` says how.
    """
    return context.stages.train(
        name,
        {"unified": unified.key, **to_plain(config.polish)},
        lambda: _polishing(context, unified, members, name, config),
    )


def planned_presentations(context: RunContext, config: UnifyConfig) -> int:
    """Images that the training of a unified model shows at most, counted with repetition."""
    sampler = _sampler(context, config)
    return max(config.loop.epochs * sampler.steps_per_epoch, config.loop.min_steps) * sampler.batch_size


def usable(context: RunContext, config: UnifyConfig) -> Positions:
    """Positions of the training images that have a target, with or without those whose product is unknown."""
    chosen = context.images.is_train if config.unlabelled else context.images.is_train & (context.images.products >= 0)
    positions = np.flatnonzero(chosen)
    if config.targets.uncertain == "weighted":  # then every image has a target
        return positions
    unknown = np.flatnonzero(context.images.verticals[positions] < 0)
    left_out = [
        part[~vertical_weights(context, config.targets, positions[part]).any(axis=1)]
        for part in np.array_split(unknown, range(ROWS_AT_ONCE, len(unknown), ROWS_AT_ONCE))
    ]
    return np.delete(positions, np.concatenate(left_out))


def _own_settings(config: UnifyConfig) -> dict[str, object]:
    """What the L2 training itself depends on; which members there are is known by their keys."""
    values = to_plain(config)
    return {key: values[key] for key in values if key not in ("way", "members", "choose", "budget", "polish")}


def _joined(context: RunContext, members: Sequence[Member], config: UnifyConfig) -> Embedder | None:
    """The unified model as its members' heads start it; None where they cannot."""
    if config.start == "random" or config.targets.offset:  # no member has the dimensions of an offset
        return None
    fitted = fit_target_map(context, members, config.targets, unlabelled=config.unlabelled)
    return joined_embedder(context, fitted, usable(context, config), batch_norm=config.batch_norm)


def _sampler(context: RunContext, config: UnifyConfig) -> UniformSampler:
    return UniformSampler(usable(context, config), batch_size=config.loop.batch_size, seed=context.recipe.seed)


def _job(context: RunContext, members: Sequence[Member], config: UnifyConfig) -> TrainingJob:
    targets = learning_targets(context, members, config.targets, unlabelled=config.unlabelled)
    joined, loop = _joined(context, members, config), config.loop
    if joined is not None:
        loop = replace(loop, learning_rate=config.start_rate * loop.learning_rate)
    return TrainingJob(
        embedder=joined or context.new_embedder(batch_norm=config.batch_norm, size=targets.width),
        objective=TargetObjective(TargetL2Loss(), targets, consistent=config.consistent),
        sampler=_sampler(context, config),
        loop=loop,
        starts_trained=joined is not None,
    )


class PolishObjective(Objective):
    """A loss on product labels, beside the L2 loss towards the learning targets.

    Args:
        labels: the loss on product labels.
        targets: the L2 loss.
        weight: of the L2 loss.
    """

    def __init__(self, labels: Objective, targets: Objective, *, weight: float) -> None:
        super().__init__()
        self.labels, self.targets, self._weight = labels, targets, weight

    def forward(self, embeddings: Float[Tensor, "B D"], positions: Positions, views: Positions) -> Float[Tensor, ""]:
        """The sum of both for the images at `positions`, shown in `views`."""
        own: Tensor = self.labels(embeddings, positions, views)
        if not self._weight:
            return own
        towards: Tensor = self.targets(embeddings, positions, views)
        return own + self._weight * towards

    def after_step(self, step: int, embed_all: EmbedAll) -> list[MovedRows]:
        """What the loss on product labels has to do."""
        return self.labels.after_step(step, embed_all)

    def figures(self) -> dict[str, float]:
        """What the loss on product labels watches."""
        return self.labels.figures()


def _polishing(
    context: RunContext, unified: TrainedModel, members: Sequence[Member], name: str, config: UnifyConfig
) -> TrainingJob:
    targets = learning_targets(context, members, config.targets, unlabelled=config.unlabelled)
    own = unified.embedder.config
    embedder = context.new_embedder(batch_norm=own.batch_norm, size=own.size, hidden_sizes=own.hidden_sizes)
    embedder.load_state_dict(unified.embedder.state_dict())
    job = label_job(
        context,
        config.polish.labels,
        np.ones(len(context.images.catalogue), bool),
        folder=context.stages.work_folder(name),
        embedder=embedder,
    )
    towards = TargetObjective(TargetL2Loss(), targets, consistent=config.consistent)
    return replace(job, objective=PolishObjective(job.objective, towards, weight=config.polish.weight))
