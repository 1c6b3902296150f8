"""Specialists: one embedding model a vertical, and the joint models that serve as yardsticks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from univert.core.config import config_to_mapping
from univert.core.files import folder_name
from univert.losses.mined_loss import MinedLoss
from univert.losses.registry import LossName, compares_images, make_loss
from univert.training.batches import label_sampler, make_miner
from univert.training.objectives import label_objective
from univert.training.proxies import bounds_monitor, start_proxies
from univert.training.recipe import SpecialistsConfig, with_positives
from univert.training.workshop import Lesson, Trained, Workshop


def train_specialist(workshop: Workshop, vertical: str) -> Trained:
    """Train (or load) the specialist of one vertical, on its labelled training images alone."""
    config = workshop.recipe.specialists
    name = f"specialists/{folder_name(vertical)}"
    folder = workshop.work_folder(name)
    return workshop.train_stage(
        name,
        {"vertical": vertical, **config_to_mapping(config)},
        lambda: label_lesson(workshop, config, workshop.of_vertical(vertical), folder=folder),
    )


def train_joint(
    workshop: Workshop, loss: LossName, image_presentations: int, *, name: str | None = None
) -> Trained:
    """Train (or load) one model on all verticals at once: what the unified model has to beat.

    Args:
        workshop: the run.
        loss: as in `SpecialistsConfig`; the specialists' options hold if it is theirs, else its defaults.
        image_presentations: how many images it may see at most.
        name: its folder within the run; null takes `joint/LOSS`.
    """
    config = workshop.recipe.specialists
    steps = max(1, image_presentations // config.loop.batch_size)
    loop = replace(config.loop, epochs=1, min_steps=steps)
    if loss == config.loss:
        config = replace(config, loop=loop)
    else:
        config = SpecialistsConfig(loss=loss, loop=with_positives(loop) if compares_images(loss) else loop)
    return train_on_labels(workshop, config, name=name or f"joint/{loss.replace('-', '_')}")


def train_on_labels(workshop: Workshop, config: SpecialistsConfig, *, name: str) -> Trained:
    """Train (or load) one model on the labelled training images of all verticals.

    Args:
        workshop: the run.
        config: loss and loop.
        name: its folder within the run.
    """
    everything = np.ones(len(workshop.catalogue), bool)
    folder = workshop.work_folder(name)
    return workshop.train_stage(
        name, config_to_mapping(config), lambda: label_lesson(workshop, config, everything, folder=folder)
    )


def labelled_products(workshop: Workshop, among: Bool[np.ndarray, "N"]) -> Int64[np.ndarray, "N"]:
    """Product codes of the labelled training images of a subset, counted from 0; -1 for every other image."""
    usable = workshop.is_train & (workshop.products >= 0) & among
    codes = np.full(len(workshop.products), -1, np.int64)
    codes[usable] = np.unique(workshop.products[usable], return_inverse=True)[1]
    return codes


def label_lesson(
    workshop: Workshop, config: SpecialistsConfig, among: Bool[np.ndarray, "N"], *, folder: Path
) -> Lesson:
    """What a model learns from product labels alone.

    Args:
        workshop: the run.
        config: loss, batches and loop.
        among: the images that count, in training and in validation.
        folder: of the checkpoint; strong negatives that are mined on the way are kept there, too.
    """
    products = labelled_products(workshop, among)
    seed, count = workshop.recipe.seed, int(products.max()) + 1
    embedder = workshop.new_embedder()
    loss = make_loss(
        config.loss,
        config.loss_options,
        products=count,
        size=embedder.size,
        proxies_per_product=config.proxies_per_product,
        seed=seed,
    )
    if config.proxy_start == "data":
        labelled = np.flatnonzero(products >= 0)
        start_proxies(loss, workshop.source.embed_all(embedder, labelled), products[labelled], seed=seed)
    monitor = bounds_monitor(workshop, embedder, loss, products)
    if config.miner != "none":
        loss = MinedLoss(loss, make_miner(config.miner))
    return Lesson(
        embedder=embedder,
        objective=label_objective(loss, products, reseed_every_steps=config.reseed_every_steps, seed=seed),
        sampler=label_sampler(workshop, config, products, embedder, folder),
        loop=config.loop,
        among=among,
        monitor=monitor,
    )


def presentations(trained: list[Trained]) -> int:
    """Images shown during the training of several models, counted with repetition."""
    return int(sum(model.record["image_presentations"] for model in trained))
