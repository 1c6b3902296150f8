"""Learning targets: what the unified model is to reproduce for each image (Unified eq. 2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from univert.core.files import fingerprint
from univert.training.run_context import RunContext
from univert.training.targets.config import UnifyConfig
from univert.training.targets.map import fit_target_map, map_inputs
from univert.training.targets.members import Member
from univert.training.view_arrays import Positions, Rows, ViewArrays, by_parts

ROWS_AT_ONCE = 256
LIKELY = 0.05
"""A predicted vertical below this probability does not count."""


def learning_targets(context: RunContext, members: Sequence[Member], config: UnifyConfig) -> ViewArrays:
    """Every image's learning target; computed once, then read from disk.

    Returns:
        unit rows of width `model.size`: of every image as it is, whatever its split, and of the training images'
        augmented views.
    """
    key = fingerprint(map_inputs(context, members, config), config.confidence)

    def rows(positions: Positions, views: Positions) -> Rows:
        fitted = fit_target_map(context, members, config)
        return fitted.rows(context, positions, views, vertical_weights(context, config, positions))

    compute = by_parts(rows, ROWS_AT_ONCE)
    return context.features.view_arrays(f"targets-{key}", "learning targets", context.target_size, compute)


def vertical_weights(context: RunContext, config: UnifyConfig, positions: Positions) -> Float[np.ndarray, "B K"]:
    """How much the specialists of each vertical have to say about some images; rows sum to 1.

    Where the vertical is unknown (`data.unsorted`) it is predicted; see `weights_of_predictions`.
    """
    verticals = context.images.verticals[positions]
    weights = np.zeros((len(positions), len(context.images.vertical_names)), np.float32)
    known = np.flatnonzero(verticals >= 0)
    weights[known, verticals[known]] = 1
    unknown = np.flatnonzero(verticals < 0)
    if len(unknown):
        probabilities = context.features.vertical_probabilities(positions[unknown])
        weights[unknown] = weights_of_predictions(probabilities, config.confidence)
    return weights


def weights_of_predictions(probabilities: Float[np.ndarray, "N K"], confidence: float) -> Float[np.ndarray, "N K"]:
    """How much each vertical has to say about images whose vertical is predicted; rows sum to 1.

    Where the likeliest vertical reaches the confidence, it alone counts; elsewhere all verticals count by their
    probability, except those below 5%.
    """
    best = probabilities.max(axis=1, keepdims=True)
    kept = np.where(probabilities >= np.minimum(LIKELY, best), probabilities, 0)
    mixed = kept / kept.sum(axis=1, keepdims=True)
    likeliest = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    return np.asarray(np.where(best >= confidence, likeliest, mixed), np.float32)


def targets_by_predicted_vertical(
    context: RunContext, members: Sequence[Member], config: UnifyConfig, positions: Positions
) -> Float[np.ndarray, "N D"]:
    """Learning targets of images as they are, every likely vertical counting by its predicted probability.

    A unified model does not know the verticals either. So what these targets reach in the merged gallery is close to
    what a unified model learns from them, and it can be seen before one is trained.
    """
    fitted = fit_target_map(context, members, config)

    def rows(positions: Positions, views: Positions) -> Rows:
        weights = weights_of_predictions(context.features.vertical_probabilities(positions), 1.0)
        return fitted.rows(context, positions, views, weights)

    parts = by_parts(rows, ROWS_AT_ONCE)(positions, np.zeros(len(positions), np.int64))
    return np.concatenate([np.zeros((0, context.target_size), np.float32), *parts])


def distortion_of(context: RunContext, members: Sequence[Member], config: UnifyConfig) -> dict[str, float]:
    """The share of the embeddings' squared length that the targets keep, as `energy_kept`.

    It is measured on the validation images, which the targets were not fitted on; empty without any.
    """
    positions = np.flatnonzero((context.images.splits == "val") & (context.images.verticals >= 0))

    def measure() -> dict[str, float]:
        fitted = fit_target_map(context, members, config)
        return {"energy_kept": fitted.energy_kept(context, positions)} if len(positions) else {}

    return context.stages.remembered("distortion", [map_inputs(context, members, config), "val"], measure)
