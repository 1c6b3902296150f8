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


def learning_targets(
    workshop: Workshop,
    specialists: dict[str, Trained],
    *,
    align: bool,
    unlabelled: bool = True,
    joint: Trained | None = None,
) -> ViewArrays:
    """Every image's embedding by the specialist of its vertical; computed once, then read from disk.

    Args:
        workshop: the run.
        specialists: by vertical; every vertical needs one, all of the same size.
        align: rotate each specialist's space towards a common reference: the joint model's space or, without
            one, the PCA-reduced space of the untrained base network. Fitted on training images.
        unlabelled: fit the rotations on images whose product is unknown, too.
        joint: take the mean of the specialist's and this model's embeddings.

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
    rotations = _rotations(workshop, plain, joint, fitted_on=_usable(workshop, unlabelled))
    key += "" if unlabelled else "-labelled"

    def rotated(vertical: int, positions: Positions, views: Positions) -> Rows:
        rows: Rows = plain.gather(positions, views) @ rotations[vertical]
        return rows

    if joint is None:
        return _per_vertical(workshop, f"targets-{key}-aligned", "alignment", plain.width, rotated)
    model = joint.embedder.eval()

    def mean(vertical: int, positions: Positions, views: Positions) -> Rows:
        with torch.inference_mode():
            own = workshop.source.embed(model, positions, views).float().cpu().numpy()
        rows: Rows = own + rotated(vertical, positions, views)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    return _per_vertical(workshop, f"targets-{key}-{joint.key}", "ensemble", plain.width, mean)


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


def _rotations(
    workshop: Workshop, targets: ViewArrays, joint: Trained | None, *, fitted_on: Positions
) -> list[Float[np.ndarray, "D D"]]:
    """For each vertical, the rotation of its specialist's space towards the common reference."""
    if joint is None:
        base = workshop.base_vectors(fitted_on)
        reference = PCAReference(base, targets.width)(base)
    else:
        reference = workshop.source.embed_all(joint.embedder, fitted_on)
    rotations = []
    for vertical in range(len(workshop.vertical_names)):
        here = workshop.verticals[fitted_on] == vertical
        rotation = orthogonal_alignment(targets.clean(fitted_on[here]), reference[here])
        rotations.append(rotation.astype(np.float32))
    return rotations


def train_unified(
    workshop: Workshop,
    specialists: dict[str, Trained],
    *,
    name: str,
    config: UnifyConfig,
    joint: Trained | None = None,
) -> Trained:
    """Train (or load) a unified model by L2 loss on the learning targets.

    Args:
        workshop: the run.
        specialists: by vertical.
        name: the folder within the run.
        config: the recipe's, or a variation of it.
        joint: the joint model, where `config.targets` is `ensemble`.
    """
    joint = joint if config.targets == "ensemble" else None
    keys = {vertical: trained.key for vertical, trained in specialists.items()}
    return workshop.train_stage(
        name,
        {"specialists": keys, "joint": joint.key if joint else "", **config_to_mapping(config)},
        lambda: _lesson(workshop, specialists, config, joint),
    )


def planned_presentations(workshop: Workshop, config: UnifyConfig) -> int:
    """Images that the training of a unified model shows at most, counted with repetition."""
    sampler = _sampler(workshop, config)
    return max(config.loop.epochs * sampler.steps_per_epoch, config.loop.min_steps) * sampler.batch_size


def _sampler(workshop: Workshop, config: UnifyConfig) -> UniformSampler:
    positions = _usable(workshop, config.unlabelled)
    return UniformSampler(positions, batch_size=config.loop.batch_size, seed=workshop.recipe.seed)


def _usable(workshop: Workshop, unlabelled: bool) -> Positions:
    """Positions of the training images, with or without those whose product is unknown."""
    return np.flatnonzero(workshop.is_train if unlabelled else workshop.is_train & (workshop.products >= 0))


def _lesson(
    workshop: Workshop, specialists: dict[str, Trained], config: UnifyConfig, joint: Trained | None
) -> Lesson:
    targets = learning_targets(
        workshop, specialists, align=config.align, unlabelled=config.unlabelled, joint=joint
    )
    return Lesson(
        embedder=workshop.new_embedder(batch_norm=config.batch_norm, size=targets.width),
        objective=TargetObjective(TargetL2Loss(), targets, consistent=config.consistent),
        sampler=_sampler(workshop, config),
        loop=config.loop,
    )
