"""What a growth needs, checked before any work."""

from __future__ import annotations

import numpy as np

from univert.core.errors import BadInputError
from univert.data.catalogue import Catalogue
from univert.models.embedder import Embedder
from univert.training.grow.lineage import Lineage
from univert.training.run_context import RunContext
from univert.training.run_images import MIN_PRODUCTS
from univert.training.sources import same_weights


def check_verticals(lineage: Lineage, catalogue: Catalogue, vertical: str) -> None:
    """Refuse a vertical that is not new, or a catalogue without images of it or of any old one.

    Args:
        lineage: of the run.
        catalogue: what it is to grow on.
        vertical: the new one.

    Raises:
        BadInputError: as said.
    """
    if vertical in lineage.original_verticals:
        raise BadInputError(f"{lineage.run_path} was trained on {vertical}; name a vertical that is new to it")
    if vertical not in catalogue.verticals:
        raise BadInputError(f"the catalogue has no images of {vertical}; it has {', '.join(catalogue.verticals)}")
    missing = sorted(set(lineage.verticals) - set(catalogue.verticals))
    if missing:
        raise BadInputError(
            f"the catalogue has no images of {', '.join(missing)}, and without any the new model cannot be held to "
            "their vectors in the index: add some; they need no labels, though only labelled ones show what is lost"
        )


def check_images(context: RunContext, lineage: Lineage, vertical: str) -> None:
    """Refuse a growth with too little to learn from.

    Args:
        context: of the growth.
        lineage: of the run.
        vertical: the new one.

    Raises:
        BadInputError: an old vertical without training images, or a new one without labels.
    """
    bare = [
        name for name in lineage.verticals if not (context.images.is_train & context.images.of_vertical(name)).any()
    ]
    if bare:
        raise BadInputError(
            f"no training images of {', '.join(bare)}: the new model cannot be held to their vectors in the index; "
            'add some with split = "train"; they need no labels'
        )
    labelled = context.images.is_train & context.images.of_vertical(vertical) & (context.images.products >= 0)
    products, images = np.unique(context.images.products[labelled], return_counts=True)
    if len(products) < MIN_PRODUCTS or not (images > 1).any():
        raise BadInputError(
            f"too few labelled training images to learn {vertical} from: {len(products)} products, {images.sum()} "
            f"images; it needs at least {MIN_PRODUCTS} products, one of them with 2 images"
        )


def check_base(deployed: Embedder, context: RunContext) -> None:
    """Refuse a recipe with another base network: cached features would not be the deployed model's.

    Args:
        deployed: the model that grows.
        context: the growth at work, with the run's recipe, possibly changed.

    Raises:
        BadInputError: naming the setting.
    """
    recipe = context.recipe
    names = ("base_network", "pooling", "image_size_px", "fit", "background_rgb", "centre_share")
    for name in names:
        has, wanted = getattr(deployed.config, name), getattr(recipe.model, name)
        if has != wanted:
            raise BadInputError(
                f"model.{name} must be the deployed model's, {has!r}, got {wanted!r}; leave it as the run has it"
            )
    if recipe.base_network_learns == "no":
        pairs = ((deployed.trunk, context.features.base.trunk), (deployed.pooling, context.features.base.pooling))
        if not all(same_weights(mine, base) for mine, base in pairs):
            raise BadInputError(
                'base_network_learns must not be "no", for that of the deployed model has learned; '
                "leave it as the run has it"
            )
