"""What a growth needs, checked before any work; and whether its model may be published."""

from __future__ import annotations

from collections.abc import Mapping

from univert.core.errors import BadInputError
from univert.data.catalogue import Catalogue
from univert.metrics.compare import METRIC_NAMES
from univert.metrics.compatibility import GrowthFigures, Setback
from univert.models.embedder import Embedder
from univert.training.grow.lineage import Lineage
from univert.training.run_context import RunContext
from univert.training.run_images import MIN_PRODUCTS, RunImages
from univert.training.sources import same_weights


def check_verticals(lineage: Lineage, catalogue: Catalogue, vertical: str) -> None:
    """Refuse a vertical that is not new, or a catalogue without images of it or of any old one."""
    if vertical in lineage.original_verticals:
        raise BadInputError(f"{lineage.run_path} was trained on {vertical}; name a vertical that is new to it")
    if vertical not in catalogue.verticals:
        raise BadInputError(f"the catalogue has no images of {vertical}; it has {', '.join(catalogue.verticals)}")
    train = catalogue.column("vertical")[catalogue.column("split") == "train"]
    missing = sorted(set(lineage.verticals) - set(train))
    if missing:
        raise BadInputError(
            f"the catalogue has no training images of {', '.join(missing)}, and without any the new model cannot be "
            "held to their vectors in the index: add some; they need no labels, though only labelled ones show what is "
            "lost"
        )


def check_labels(images: RunImages, vertical: str) -> None:
    """Refuse a new vertical with too few labels to learn from."""
    products, count, enough = images.training_labels(vertical)
    if not enough:
        raise BadInputError(
            f"too few labelled training images to learn {vertical} from: {products} products, {count} images; it needs "
            f"at least {MIN_PRODUCTS} products, one of them with 2 images"
        )


def check_base(deployed: Embedder, context: RunContext) -> None:
    """Refuse a recipe with another base network: cached features would not be the deployed model's."""
    recipe = context.recipe
    for name in ("base_network", "pooling", "image_size_px", "fit", "background_rgb", "centre_share"):
        has, wanted = getattr(deployed.config, name), getattr(recipe.model, name)
        if has != wanted:
            raise BadInputError(
                f"model.{name} must be the deployed model's, {has!r}, got {wanted!r}; leave it as the run has it"
            )
    frozen = recipe.base_network_learns == "no"
    if frozen and not same_weights(deployed.base_network, context.features.base.base_network):
        raise BadInputError(
            "base_network_learns must not be no, for the deployed model's base network has learned; leave it as the "
            "run has it"
        )


def refusal_of(figures: GrowthFigures | None, *, limit: float) -> str | None:
    """Why a growth must not be published, from its figures on the validation images; None if it may.

    For `limit` see `GrowthFigures.setbacks`.
    """
    if figures is None:
        return "no validation image is a query, so nothing shows that the old vectors still serve; label some"
    if figures.unmeasured():
        return (
            f"no validation image of {', '.join(figures.unmeasured())} is a query, so nothing shows that all is well "
            "there; label two images of a product"
        )
    return "; ".join(map(_in_words, figures.setbacks(limit))) or None


def _in_words(setback: Setback) -> str:
    kept = setback.kept
    text = (
        f"{setback.gallery} lost {-100 * kept.difference:.1f} points of {METRIC_NAMES[kept.metric]} "
        f"({100 * kept.first:.1f} to {100 * kept.second:.1f})"
    )
    if not setback.certain:
        text += f" on {kept.products} products: too much, though chance is not ruled out"
    if setback.reindexed is not None:
        text += f", and indexing anew would give {100 * setback.reindexed.second:.1f}"
    return text


def card_figures(figures: Mapping[str, GrowthFigures]) -> dict[str, float | int | str]:
    """What the grown model's card says of it, from its figures by split."""
    shown: dict[str, float | int | str] = {}
    for split, found in figures.items():
        named = {
            "old verticals, queries to the stored vectors": (found.old, "the stored vectors themselves"),
            found.new_vertical: (found.specialist, "its specialist"),
        }
        for name, (differences, before) in named.items():
            if differences is not None:
                one = differences["recall_at_1"]
                shown[f"{name}, recall_at_1, {split}"] = f"{one.second:.3f} ({before}: {one.first:.3f})"
    return shown
