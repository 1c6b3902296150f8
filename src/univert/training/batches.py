"""Which images come together in a batch, and which of its triplets count."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from univert.data.duplicates import NearDuplicates, picture_hashes
from univert.data.samplers import PKSampler, Sampler, StrongNegativeSampler, UniformSampler
from univert.data.strong_negatives import StrongNegatives
from univert.losses.miners import DistanceWeightedMiner, HardMiner, Miner, SemiHardMiner
from univert.losses.names import compares_images
from univert.models.embedder import Embedder
from univert.training.label_config import MinerName, SpecialistsConfig
from univert.training.remining import ReminingSampler, miner_of
from univert.training.run_context import RunContext

Products = Int64[np.ndarray, "N"]


def make_miner(name: MinerName) -> Miner:
    """The in-batch miner of that name, with its defaults."""
    miners: dict[MinerName, type[SemiHardMiner | HardMiner | DistanceWeightedMiner]] = {
        "semi-hard": SemiHardMiner,
        "hard": HardMiner,
        "distance-weighted": DistanceWeightedMiner,
    }
    return miners[name]()


def label_sampler(
    context: RunContext, config: SpecialistsConfig, products: Products, embedder: Embedder, folder: Path
) -> Sampler:
    """The batches of a training on product labels.

    Args:
        context: the run.
        config: what the recipe says.
        products: the product code of every image of the catalogue, -1 for those that take no part.
        embedder: the model in training, for mining.
        folder: of the checkpoint; mined tables are kept there.
    """
    loop, seed = config.loop, context.recipe.seed
    if config.mine_every_steps:
        return _mined(context, config, products, embedder, folder)
    if loop.images_per_product == 1:
        return UniformSampler(np.flatnonzero(products >= 0), batch_size=loop.batch_size, seed=seed)
    return PKSampler(
        products,
        products_per_batch=loop.batch_size // loop.images_per_product,
        images_per_product=loop.images_per_product,
        min_images=2 if compares_images(config.loss) else 1,
        seed=seed,
    )


def _mined(
    context: RunContext, config: SpecialistsConfig, products: Products, embedder: Embedder, folder: Path
) -> Sampler:
    """P x K batches in which anchors meet their strong negatives, mined anew as the model learns."""
    loop, seed = config.loop, context.recipe.seed
    duplicates = NearDuplicates(hashes=picture_hashes(context.catalogue))

    def sample(mined: StrongNegatives) -> Sampler:
        return StrongNegativeSampler(
            products, mined, batch_size=loop.batch_size, images_per_product=loop.images_per_product, seed=seed
        )

    mine = partial(miner_of, embedder, context.source, products, context.verticals)
    if isinstance(margin := config.loss_options.get("margin"), int | float):
        mine = partial(mine, margin=float(margin))
    return ReminingSampler(
        mine(protect=duplicates, seed=seed), sample, every_steps=config.mine_every_steps, folder=folder
    )
