"""Unify: one model that reproduces the learning targets of all verticals (Unified eq. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from univert.core.config import to_plain
from univert.data.samplers import UniformSampler
from univert.losses.target_l2_loss import TargetL2Loss
from univert.training.jobs import TrainedModel, TrainingJob
from univert.training.objectives import TargetObjective
from univert.training.run_context import RunContext
from univert.training.targets.config import UnifyConfig
from univert.training.targets.learning_targets import learning_targets
from univert.training.targets.map import fit_target_map
from univert.training.targets.members import Member
from univert.training.targets.start import embedder_of_members
from univert.training.view_arrays import Positions

JOINED_RATE = 0.25
"""A head that is joined from its members' has less to learn: its learning rate is this share of the loop's."""


def train_unified(context: RunContext, members: Sequence[Member], *, name: str, config: UnifyConfig) -> TrainedModel:
    """Train (or load) a unified model by L2 loss on the targets that join the members, in a folder within the run."""
    values = to_plain(config)
    for name_of_another in ("way", "members"):  # which members there are is known by their keys
        del values[name_of_another]
    inputs = {"members": [member.key for member in members], **values}
    return context.stages.train(name, inputs, lambda: _job(context, members, config))


def planned_presentations(context: RunContext, config: UnifyConfig) -> int:
    """Images that the training of a unified model shows at most, counted with repetition."""
    sampler = _sampler(context, config)
    return config.loop.steps(sampler.steps_per_epoch) * sampler.batch_size


def images_to_learn_from(context: RunContext, config: UnifyConfig) -> Positions:
    """Positions of the training images, with or without those whose product is unknown."""
    return np.flatnonzero(context.images.is_train & (config.unlabelled | (context.images.products >= 0)))


def _sampler(context: RunContext, config: UnifyConfig) -> UniformSampler:
    positions = images_to_learn_from(context, config)
    return UniformSampler(positions, batch_size=config.loop.batch_size, seed=context.recipe.seed)


def _job(context: RunContext, members: Sequence[Member], config: UnifyConfig) -> TrainingJob:
    targets = learning_targets(context, members, config)
    joined, loop = None, config.loop
    if config.start == "members":
        fitted = fit_target_map(context, members, config)
        joined = embedder_of_members(context, fitted, targets, images_to_learn_from(context, config))
    if joined is not None:
        loop = replace(loop, learning_rate=JOINED_RATE * loop.learning_rate)
    return TrainingJob(
        embedder=joined or context.new_embedder(batch_norm=True, size=targets.width),
        objective=TargetObjective(TargetL2Loss(), targets, consistent=config.consistent),
        sampler=_sampler(context, config),
        loop=loop,
        settings="unify.loop",
        starts_trained=joined is not None,
    )
