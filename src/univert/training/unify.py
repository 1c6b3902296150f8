"""Unify: one model that reproduces every specialist's embedding of its own vertical (Unified eq. 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float

from univert.core.config import config_to_mapping
from univert.core.errors import BadInputError
from univert.core.files import fingerprint
from univert.data.samplers import UniformSampler
from univert.losses.target_l2_loss import TargetL2Loss
from univert.training.alignment import PCAReference, orthogonal_alignment
from univert.training.objectives import TargetObjective
from univert.training.recipe import UnifyConfig
from univert.training.views import Positions, Rows, ViewArrays
from univert.training.workshop import Lesson, Trained, Workshop

ROWS_AT_ONCE = 256


def learning_targets(workshop: Workshop, specialists: dict[str, Trained], *, align: bool) -> ViewArrays:
    """Every image's embedding by the specialist of its vertical; computed once, then read from disk.

    Args:
        workshop: the run.
        specialists: by vertical; every vertical needs one, all of the same size.
        align: rotate each specialist's space towards the PCA-reduced space of the untrained base network.
            The rotations are fitted on training images, labelled or not.

    Returns:
        unit rows: of every image as it is, whatever its split, and of the training images' augmented views.

    Raises:
        BadInputError: a vertical has no specialist.
    """
    missing = [name for name in workshop.vertical_names if name not in specialists]
    if missing:
        raise BadInputError(f"no specialist for: {', '.join(missing)}; train one, or leave the vertical out")
    models = [specialists[name].embedder for name in workshop.vertical_names]
    key = fingerprint({name: trained.key for name, trained in specialists.items()})

    def by_specialists(vertical: int, positions: Positions, views: Positions) -> Rows:
        with torch.inference_mode():
            vectors = workshop.source.embed(models[vertical].eval(), positions, views)
        rows: Rows = vectors.float().cpu().numpy()
        return rows

    plain = _per_vertical(workshop, f"targets-{key}", "learning targets", models[0].size, by_specialists)
    if not align:
        return plain
    rotations = _rotations(workshop, plain)

    def rotated(vertical: int, positions: Positions, views: Positions) -> Rows:
        rows: Rows = plain.gather(positions, views) @ rotations[vertical]
        return rows

    return _per_vertical(workshop, f"targets-{key}-aligned", "alignment", plain.width, rotated)


def _per_vertical(
    workshop: Workshop,
    name: str,
    description: str,
    width: int,
    function: Callable[[int, Positions, Positions], Rows],
) -> ViewArrays:
    """Rows for every image and view from a function that takes images of one vertical at a time."""

    def compute(positions: Positions, views: Positions) -> Iterator[Rows]:
        for start in range(0, len(positions), ROWS_AT_ONCE):
            chunk, numbers = positions[start : start + ROWS_AT_ONCE], views[start : start + ROWS_AT_ONCE]
            rows = np.empty((len(chunk), width), np.float32)
            for vertical in np.unique(workshop.verticals[chunk]):
                here = workshop.verticals[chunk] == vertical
                rows[here] = function(int(vertical), chunk[here], numbers[here])
            yield rows

    return workshop.view_arrays(name, description, width, compute)


def _rotations(workshop: Workshop, targets: ViewArrays) -> list[Float[np.ndarray, "D D"]]:
    """For each vertical, the rotation of its specialist's space towards the common reference."""
    train = np.flatnonzero(workshop.is_train)
    base = workshop.base_vectors(train)
    reference = PCAReference(base, targets.width)
    rotations = []
    for vertical in range(len(workshop.vertical_names)):
        here = workshop.verticals[train] == vertical
        rotation = orthogonal_alignment(targets.clean(train[here]), reference(base[here]))
        rotations.append(rotation.astype(np.float32))
    return rotations


def train_unified(
    workshop: Workshop,
    specialists: dict[str, Trained],
    *,
    name: str,
    config: UnifyConfig,
) -> Trained:
    """Train (or load) a unified model by L2 loss on the learning targets.

    Args:
        workshop: the run.
        specialists: by vertical.
        name: the folder within the run.
        config: the recipe's, or a variation of it.
    """
    keys = {vertical: trained.key for vertical, trained in specialists.items()}
    return workshop.train_stage(
        name,
        {"specialists": keys, **config_to_mapping(config)},
        lambda: _lesson(workshop, specialists, config),
    )


def _lesson(workshop: Workshop, specialists: dict[str, Trained], config: UnifyConfig) -> Lesson:
    targets = learning_targets(workshop, specialists, align=config.align)
    usable = workshop.is_train if config.unlabelled else workshop.is_train & (workshop.products >= 0)
    seed = workshop.recipe.seed
    return Lesson(
        embedder=workshop.new_embedder(batch_norm=config.batch_norm, size=targets.width),
        objective=TargetObjective(TargetL2Loss(), targets, consistent=config.consistent),
        sampler=UniformSampler(np.flatnonzero(usable), batch_size=config.loop.batch_size, seed=seed),
        loop=config.loop,
    )
