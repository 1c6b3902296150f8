"""Training on product labels: the loss with its proxies, the batches, and what is watched on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import nn

from univert.data.duplicates import near_duplicates
from univert.data.samplers import PKSampler, Sampler, StrongNegativeSampler, UniformSampler
from univert.data.strong_negatives import StrongNegatives
from univert.losses.dynamic_proxy_nca_loss import DynamicProxyNCALoss
from univert.losses.miners import DistanceWeightedMiner, HardMiner, MinedLoss, SemiHardMiner
from univert.losses.names import LOSSES, compares_images, make_loss
from univert.losses.proxy_nca_loss import ProxyNCALoss
from univert.losses.proxy_triplet_loss import ProxyTripletLoss
from univert.models.embedder import Embedder
from univert.proxies.assignment import StaticAssignment
from univert.proxies.bank import ProxyBank
from univert.proxies.bounds import measure_bounds, monitor_points
from univert.proxies.dynamic import start_from_points
from univert.training.jobs import TrainingJob
from univert.training.label_config import SpecialistsConfig
from univert.training.objectives import label_objective
from univert.training.remining import ReminingSampler, miner_of
from univert.training.run_context import RunContext
from univert.training.sources import Source

WATCHED = {
    "nca_tightness": "NCA bound minus loss",
    "triplet_tightness": "triplet bound minus loss",
    "order_preserved": "triplet order kept by proxies",
    "dead_proxies": "dead proxies",
}
"""What the report shows of a loss with proxies, and its name for people; TensorBoard has more."""
MINERS = {"semi-hard": SemiHardMiner, "hard": HardMiner, "distance-weighted": DistanceWeightedMiner}


def labelled_products(context: RunContext, among: Bool[np.ndarray, "N"]) -> Int64[np.ndarray, "N"]:
    """Product codes of the labelled training images of a subset, counted from 0; -1 for every other image."""
    usable = context.images.is_train & (context.images.products >= 0) & among
    codes = np.full(len(context.images.products), -1, np.int64)
    codes[usable] = np.unique(context.images.products[usable], return_inverse=True)[1]
    return codes


def label_job(
    context: RunContext,
    config: SpecialistsConfig,
    among: Bool[np.ndarray, "N"],
    *,
    folder: Path,
    embedder: Embedder | None = None,
    source: Source | None = None,
) -> TrainingJob:
    """What a model (None: a new one) learns from the product labels of the images `among` alone.

    `folder` is that of the checkpoint; strong negatives that are mined on the way are kept there, too. `source` takes
    the place of the run's.
    """
    products = labelled_products(context, among)
    seed, count = context.recipe.seed, int(products.max()) + 1
    embedder = embedder or context.new_embedder()
    loss = label_loss(config, products=count, size=embedder.size, seed=seed)
    if config.proxy_start == "data" and LOSSES[config.loss].has_bank:
        labelled = np.flatnonzero(products >= 0)
        vectors = (source or context.features.source).embed_all(embedder, labelled)
        _start_proxies(loss, vectors, products[labelled], seed=seed)
    monitor = _bounds_monitor(context, embedder, loss, products)
    if config.mine_every_steps:
        sampler = _mined_batches(context, config, products, embedder, folder)
    else:
        sampler = plain_batches(config, products, seed=seed)
    return TrainingJob(
        embedder=embedder,
        objective=label_objective(
            with_miner(config, loss),
            products,
            reseed_every_steps=config.reseed_every_steps,
            seed=seed,
            random_first=config.proxy_start == "random-assignment",
        ),
        sampler=sampler,
        loop=config.loop,
        settings="specialists.loop",
        among=among,
        source=source,
        monitor=monitor,
        starts_trained=True,
    )


def label_loss(config: SpecialistsConfig, *, products: int, size: int, seed: int) -> nn.Module:
    """The loss that a recipe asks for, with its proxies at random directions and without a miner.

    Raises:
        BadInputError: the loss refuses one of its options.
    """
    return make_loss(
        config.loss,
        config.loss_options,
        products=products,
        size=size,
        proxies_per_product=config.proxies_per_product,
        seed=seed,
    )


def with_miner(config: SpecialistsConfig, loss: nn.Module) -> nn.Module:
    """The same loss over the triplets that the recipe's miner chooses, if it has one."""
    return loss if config.miner == "none" else MinedLoss(loss, MINERS[config.miner]())


def plain_batches(config: SpecialistsConfig, products: Int64[np.ndarray, "N"], *, seed: int) -> Sampler:
    """Batches by product, or at random where one image of a product at a time is wanted."""
    loop = config.loop
    if config.images_per_product == 1:
        return UniformSampler(np.flatnonzero(products >= 0), batch_size=loop.batch_size, seed=seed)
    return PKSampler(
        products,
        products_per_batch=loop.batch_size // config.images_per_product,
        images_per_product=config.images_per_product,
        min_images=2 if compares_images(config.loss) else 1,
        seed=seed,
    )


def _mined_batches(
    context: RunContext, config: SpecialistsConfig, products: Int64[np.ndarray, "N"], embedder: Embedder, folder: Path
) -> Sampler:
    """P x K batches in which anchors meet their strong negatives, mined anew as the model learns."""
    loop, seed = config.loop, context.recipe.seed
    duplicates = near_duplicates(context.images.catalogue)

    def sample(mined: StrongNegatives) -> Sampler:
        return StrongNegativeSampler(
            products, mined, batch_size=loop.batch_size, images_per_product=config.images_per_product, seed=seed
        )

    mine = partial(miner_of, embedder, context.features.source, products, context.images.verticals)
    if isinstance(margin := config.loss_options.get("margin"), int | float):
        mine = partial(mine, margin=float(margin))
    return ReminingSampler(
        mine(protect=duplicates, seed=seed), sample, every_steps=config.mine_every_steps, folder=folder
    )


def _start_proxies(
    loss: nn.Module, embeddings: Float[np.ndarray, "N D"], products: Int64[np.ndarray, "N"], *, seed: int
) -> None:
    """Move proxies to where the images are: those of products to the means of their images, dynamic ones among them."""
    bank, assignment = loss.bank, getattr(loss, "assignment", None)
    assert isinstance(bank, ProxyBank)
    points = torch.from_numpy(embeddings)
    if isinstance(loss, DynamicProxyNCALoss):
        start_from_points(bank, points, seed=seed)
    else:
        assert isinstance(assignment, StaticAssignment)
        bank.fill_(points, torch.from_numpy(products), assignment, seed=seed)


def _bounds_monitor(
    context: RunContext, embedder: Embedder, loss: nn.Module, products: Int64[np.ndarray, "N"]
) -> Callable[[], Mapping[str, float]] | None:
    """What watches how tightly a loss with proxies bounds the loss on the images; None for others, or switched off."""
    bank = getattr(loss, "bank", None)
    count, seed = context.recipe.evaluation.bounds_images, context.recipe.seed
    if not isinstance(bank, ProxyBank) or not count:
        return None
    labelled = np.flatnonzero(products >= 0)
    positions = labelled[monitor_points(torch.from_numpy(products[labelled]), limit=count, seed=seed)]
    labels = torch.from_numpy(products[positions])
    names, scale, margin = _bounded(loss)

    def measure() -> Mapping[str, float]:
        vectors = torch.from_numpy(context.features.source.embed_all(embedder, positions))
        assignment = getattr(loss, "assignment", None)
        own = None if assignment is None else assignment(labels.to(assignment.table.device)).cpu()
        proxies = bank().detach().cpu()
        found = measure_bounds(vectors, labels, proxies, own, scale=scale, margin=margin, seed=seed)
        return {name: value for name, value in found.items() if name.startswith(names)}

    return measure


def _bounded(loss: nn.Module) -> tuple[tuple[str, ...], float, float]:
    """How the names of the figures begin that mean something for a loss, its 1/temperature and its margin."""
    both = ("eps", "order", "nca", "triplet")
    if isinstance(loss, ProxyTripletLoss):
        return ("eps", "order", "triplet"), 1.0, loss.margin
    if isinstance(loss, (DynamicProxyNCALoss, ProxyNCALoss)):
        return both, loss.softmax_scale, 0.2
    return ("eps", "order"), 1.0, 0.2
