"""What a run learns from: the images of its verticals, their products, verticals and splits."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int64

from univert.core.errors import BadInputError
from univert.core.files import folder_name
from univert.data.catalogue import Catalogue
from univert.metrics.inputs import has_queries
from univert.training.recipe import Recipe

MIN_PRODUCTS = 2


class RunImages:
    """The images of a recipe's verticals.

    Attributes:
        catalogue: the images of the recipe's verticals.
        vertical_names: sorted.

    Raises:
        BadInputError: unknown verticals.
    """

    def __init__(self, catalogue: Catalogue, recipe: Recipe) -> None:
        self.recipe = recipe
        for key, named in (("data.verticals", recipe.data.verticals), ("specialists.sizes", recipe.specialists.sizes)):
            unknown = sorted(set(named) - set(catalogue.verticals))
            if unknown:
                raise BadInputError(
                    f"{key}: the catalogue has no {', '.join(unknown)}; it has {', '.join(catalogue.verticals)}"
                )
        if recipe.data.verticals:
            wanted = {*recipe.data.verticals, recipe.data.unsorted}
            catalogue = catalogue.select(vertical=[name for name in catalogue.verticals if name in wanted])
        self.catalogue = catalogue
        self.vertical_names = [name for name in catalogue.verticals if name != recipe.data.unsorted]
        self._check_unsorted(recipe.data.unsorted)

    def _check_unsorted(self, unsorted: str | None) -> None:
        if unsorted is None:
            return
        if unsorted not in self.catalogue.verticals:
            raise BadInputError(f"data.unsorted: the catalogue has no vertical {unsorted!r}; leave it out")
        labelled = int(((self.products >= 0) & (self.verticals < 0)).sum())
        if labelled or not self.vertical_names:
            raise BadInputError(
                f"data.unsorted: {labelled} images of {unsorted!r} have a product, so their vertical must be known; "
                "give them their vertical, and leave in it only images without a product"
                if labelled
                else f"data.unsorted: {unsorted!r} is the catalogue's only vertical; leave it out"
            )

    @cached_property
    def products(self) -> Int64[np.ndarray, "N"]:
        """Product code of each image, -1 where unknown."""
        return self.catalogue.product_labels()

    @cached_property
    def verticals(self) -> Int64[np.ndarray, "N"]:
        """Vertical of each image, as a place in `vertical_names`; -1 where it is unknown (`data.unsorted`)."""
        names = self.catalogue.column("vertical").astype(str)
        places = np.searchsorted(self.vertical_names, names)
        return np.where(names == (self.recipe.data.unsorted or ""), -1, places)

    @cached_property
    def splits(self) -> np.ndarray:
        """Split of each image (or None)."""
        return self.catalogue.column("split")

    @cached_property
    def is_train(self) -> Bool[np.ndarray, "N"]:
        """Which images may be learned from."""
        return np.asarray(self.splits == "train")

    def names_of(self, positions: Int64[np.ndarray, "B"]) -> list[str]:
        """The verticals of some images by name."""
        return [str(name) for name in self.catalogue.column("vertical")[positions]]

    @cached_property
    def validation_queries(self) -> Int64[np.ndarray, "M"] | None:
        """Positions of the labelled validation images; None where no product has two of them."""
        positions = np.flatnonzero((self.splits == "val") & (self.products >= 0))
        return positions if has_queries(self.products[positions]) else None

    def of_vertical(self, name: str) -> Bool[np.ndarray, "N"]:
        """Which images belong to a vertical."""
        return np.asarray(self.verticals == self.vertical_names.index(name))

    def folder_of(self, *verticals: str) -> str:
        """The folder of a model for some verticals, in a folder with those of others."""
        return folder_name(*verticals, among=self.vertical_names)

    def refuse_small_verticals(self) -> None:
        """Specialists need something to learn from in every vertical.

        Raises:
            BadInputError: naming the verticals that have too little.
        """
        labelled = self.is_train & (self.products >= 0)
        small = {}
        for name in self.vertical_names:
            here = self.products[labelled & self.of_vertical(name)]
            products, images = np.unique(here, return_counts=True)
            if len(products) < MIN_PRODUCTS or not (images > 1).any():
                small[name] = f"{name} ({len(products)} products, {len(here)} images)"
        if small:
            rest = [name for name in self.vertical_names if name not in small]
            raise BadInputError(
                f"too few labelled training images to learn from in: {', '.join(small.values())}; a vertical needs at "
                f"least {MIN_PRODUCTS} products, one of them with 2 images: add some, or set data.verticals = {rest}"
            )
