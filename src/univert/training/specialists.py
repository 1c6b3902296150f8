"""Specialists: one embedding model a vertical, and the joint models that serve as yardsticks."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote

import numpy as np
from jaxtyping import Bool, Int64
from torch import nn

from univert.core.config import config_to_mapping
from univert.data.samplers import PKSampler
from univert.losses.proxy_nca_loss import ProxyNCALoss
from univert.losses.triplet_margin_loss import TripletMarginLoss
from univert.training.objectives import LabelObjective
from univert.training.recipe import LossName, SpecialistsConfig
from univert.training.workshop import Lesson, Trained, Workshop


def train_specialist(workshop: Workshop, vertical: str) -> Trained:
    """Train (or load) the specialist of one vertical, on its labelled training images alone."""
    config = workshop.recipe.specialists
    return workshop.train_stage(
        f"specialists/{folder_name(vertical)}",
        {"vertical": vertical, **config_to_mapping(config)},
        lambda: _lesson(workshop, config, workshop.of_vertical(vertical)),
    )


def folder_name(vertical: str) -> str:
    """A vertical's name as the name of a folder: the same for ordinary names, never a path."""
    quoted = quote(vertical, safe=" ")
    return quoted.replace(".", "%2E") if quoted.startswith(".") else quoted


def train_joint(
    workshop: Workshop, loss: LossName, image_presentations: int, *, name: str | None = None
) -> Trained:
    """Train (or load) one model on all verticals at once: what the unified model has to beat.

    Args:
        workshop: the run.
        loss: `triplet` or `proxy-nca`.
        image_presentations: how many images it may see at most.
        name: its folder within the run; null takes `joint/LOSS`.
    """
    config = workshop.recipe.specialists
    steps = max(1, image_presentations // config.loop.batch_size)
    config = replace(config, loss=loss, loop=replace(config.loop, epochs=1, min_steps=steps))
    return workshop.train_stage(
        name or f"joint/{loss.replace('-', '_')}",
        config_to_mapping(config),
        lambda: _lesson(workshop, config, np.ones(len(workshop.catalogue), bool)),
    )


def labelled_products(workshop: Workshop, among: Bool[np.ndarray, "N"]) -> Int64[np.ndarray, "N"]:
    """Product codes of the labelled training images of a subset, counted from 0; -1 for every other image."""
    usable = workshop.is_train & (workshop.products >= 0) & among
    codes = np.full(len(workshop.products), -1, np.int64)
    codes[usable] = np.unique(workshop.products[usable], return_inverse=True)[1]
    return codes


def _lesson(workshop: Workshop, config: SpecialistsConfig, among: Bool[np.ndarray, "N"]) -> Lesson:
    products = labelled_products(workshop, among)
    loop, seed = config.loop, workshop.recipe.seed
    embedder = workshop.new_embedder()
    sampler = PKSampler(
        products,
        products_per_batch=loop.batch_size // loop.images_per_product,
        images_per_product=loop.images_per_product,
        min_images=2 if config.loss == "triplet" else 1,
        seed=seed,
    )
    objective = LabelObjective(_loss(config, int(products.max()) + 1, embedder.size, seed), products)
    return Lesson(embedder=embedder, objective=objective, sampler=sampler, loop=loop, among=among)


def _loss(config: SpecialistsConfig, products: int, size: int, seed: int) -> nn.Module:
    if config.loss == "proxy-nca":
        return ProxyNCALoss(products, size, scale=config.scale, form=config.form, seed=seed)
    return TripletMarginLoss(config.margin)


def presentations(trained: list[Trained]) -> int:
    """Images shown during the training of several models, counted with repetition."""
    return int(sum(model.record["image_presentations"] for model in trained))
