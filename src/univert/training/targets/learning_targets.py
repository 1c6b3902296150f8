"""Learning targets: what the unified model is to reproduce for each image (Unified eq. 2).

The document's target of an image is its specialist's embedding. Here several models may be *members* of the target; how
their embeddings become one is the business of `univert.training.targets.map`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from jaxtyping import Float

from univert.core.files import fingerprint
from univert.training.run_context import RunContext
from univert.training.targets.config import TargetsConfig
from univert.training.targets.map import fit_target_map, map_inputs
from univert.training.targets.members import Member
from univert.training.targets.vertical_prediction import trusted
from univert.training.view_arrays import Positions, Rows, ViewArrays, by_parts

ROWS_AT_ONCE = 256


def learning_targets(
    context: RunContext, members: Sequence[Member], config: TargetsConfig, *, unlabelled: bool = True
) -> ViewArrays:
    """Every image's learning target; computed once, then read from disk.

    Args:
        context: the run.
        members: whose embeddings the target joins; specialists alone are the document's way.
        config: how they are aligned, joined and projected.
        unlabelled: fit rotations and projection on images whose product is unknown, too.

    Returns:
        unit rows of width `model.size`: of every image as it is, whatever its split, and of the training images'
        augmented views.

    Raises:
        BadInputError: no members, a vertical without training images, or settings that do not go with the members.
    """
    key = fingerprint(map_inputs(context, members, config, unlabelled))

    def rows(positions: Positions, views: Positions) -> Rows:
        fitted = fit_target_map(context, members, config, unlabelled=unlabelled)
        return fitted.rows(context, positions, views, vertical_weights(context, config, positions))

    compute = by_parts(rows, ROWS_AT_ONCE)
    return context.features.view_arrays(f"targets-{key}", "learning targets", context.target_size, compute)


def distortion_of(
    context: RunContext, members: Sequence[Member], config: TargetsConfig, *, unlabelled: bool = True
) -> dict[str, float]:
    """What joining the members and projecting to the unified model's width does to distances; see `Distortion`.

    Returns:
        its figures by name.
    """

    def measure() -> dict[str, float]:
        return asdict(fit_target_map(context, members, config, unlabelled=unlabelled).distortion)

    return context.stages.remembered("distortion", map_inputs(context, members, config, unlabelled), measure)


def vertical_weights(context: RunContext, config: TargetsConfig, positions: Positions) -> Float[np.ndarray, "B K"]:
    """How much the specialists of each vertical have to say about some images.

    An image of a known vertical belongs to that one's specialist. Where the vertical is unknown (`data.unsorted`) it is
    predicted; see `trusted`. Rows sum to 1, or are zero for images that do not count.
    """
    verticals = context.images.verticals[positions]
    weights = np.zeros((len(positions), len(context.images.vertical_names)), np.float32)
    known = np.flatnonzero(verticals >= 0)
    weights[known, verticals[known]] = 1
    unknown = np.flatnonzero(verticals < 0)
    if len(unknown):
        probabilities = context.features.vertical_probabilities(positions[unknown])
        weights[unknown] = trusted(probabilities, config.confidence, weighted=config.uncertain == "weighted")
    return weights
