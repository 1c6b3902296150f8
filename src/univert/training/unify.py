"""Unify: one model that reproduces every specialist's embedding of its own vertical (Unified eq. 2)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float

from univert.core.config import config_to_mapping
from univert.core.errors import BadInputError
from univert.core.files import fingerprint
from univert.data.samplers import UniformSampler
from univert.losses.target_l2_loss import TargetL2Loss
from univert.training.alignment import PCAReference, orthogonal_alignment
from univert.training.objectives import TargetObjective
from univert.training.recipe import UnifyConfig
from univert.training.workshop import Lesson, Trained, Workshop

Targets = Float[np.ndarray, "N D"]


def learning_targets(workshop: Workshop, specialists: dict[str, Trained], *, align: bool) -> Targets:
    """Every image's embedding by the specialist of its vertical; computed once, then read from disk.

    Args:
        workshop: the run.
        specialists: by vertical; every vertical needs one, all of the same size.
        align: rotate each specialist's space towards the PCA-reduced space of the untrained base network.
            The rotations are fitted on training images, labelled or not.

    Returns:
        float32, one unit row an image of the catalogue, whatever its split.

    Raises:
        BadInputError: a vertical has no specialist.
    """
    missing = [name for name in workshop.vertical_names if name not in specialists]
    if missing:
        raise BadInputError(f"no specialist for: {', '.join(missing)}; train one, or leave the vertical out")
    key = fingerprint({name: trained.key for name, trained in specialists.items()}, align)
    path = workshop.run.path / "cache" / f"targets-{key}.npy"
    if not path.exists():
        targets = _compute_targets(workshop, specialists, align=align)
        _save_array(path, targets)
    return np.asarray(np.load(path, mmap_mode="r"))


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
        embedder=workshop.new_embedder(batch_norm=config.batch_norm, size=targets.shape[1]),
        objective=TargetObjective(TargetL2Loss(), targets),
        sampler=UniformSampler(np.flatnonzero(usable), batch_size=config.loop.batch_size, seed=seed),
        loop=config.loop,
    )


def _compute_targets(workshop: Workshop, specialists: dict[str, Trained], *, align: bool) -> Targets:
    size = next(iter(specialists.values())).embedder.size
    targets = np.zeros((len(workshop.catalogue), size), np.float32)
    for name, trained in specialists.items():
        positions = np.flatnonzero(workshop.of_vertical(name))
        targets[positions] = workshop.source.embed_all(trained.embedder, positions)
    if align:
        _align(workshop, targets)
    return targets


def _align(workshop: Workshop, targets: Targets) -> None:
    """Rotate each vertical's rows in place."""
    base = workshop.base_vectors
    reference = PCAReference(base[workshop.is_train], targets.shape[1])
    for name in workshop.vertical_names:
        here = workshop.of_vertical(name)
        fitted = here & workshop.is_train
        rotation = orthogonal_alignment(targets[fitted], reference(base[fitted]))
        targets[here] = targets[here] @ rotation


def _save_array(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial.npy")
    np.save(temporary, array)
    temporary.replace(path)
