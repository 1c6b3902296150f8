"""What a run learns from: the images of its verticals, their products, verticals and splits."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int64

from univert.core.errors import BadInputError
from univert.core.files import folder_name
from univert.data.catalogue import Catalogue
from univert.metrics.inputs import Asking, asking, has_queries
from univert.metrics.per_query import average_precision, outcome_within
from univert.training.recipe import Recipe

MIN_PRODUCTS = 2


class RunImages:
    """The images of a recipe's verticals.

    With `split_off_small`, verticals with too few labels to learn from go to `small_verticals`.

    Attributes:
        catalogue: the images of the recipe's verticals.
        vertical_names: those that have a specialist, sorted.
        small_verticals: those that have too few labels for one, where they are split off; as far as learning goes,
            their images are like those of `data.unsorted`.

    Raises:
        BadInputError: unknown verticals, or all of them are small.
    """

    small_verticals: tuple[str, ...] = ()

    def __init__(self, catalogue: Catalogue, recipe: Recipe, *, split_off_small: bool = False) -> None:
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
        if split_off_small:
            self._split_off_small()

    def _check_unsorted(self, unsorted: str | None) -> None:
        if unsorted is None:
            return
        if unsorted not in self.catalogue.verticals:
            raise BadInputError(f"data.unsorted: the catalogue has no vertical {unsorted!r}; leave it out")
        labelled = int(((self.products >= 0) & (self._numbers == self.catalogue.verticals.index(unsorted))).sum())
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
        """Vertical of each image, as a place in `vertical_names`; -1 for all others."""
        own = {name: place for place, name in enumerate(self.vertical_names)}
        codes = np.array([own.get(name, -1) for name in self.catalogue.verticals], np.int64)
        return np.asarray(codes[self._numbers])

    @cached_property
    def _numbers(self) -> Int64[np.ndarray, "N"]:
        """Vertical of each image, as a place among all of the catalogue's."""
        names = self.catalogue.column("vertical").astype(str)
        return np.asarray(np.searchsorted(self.catalogue.verticals, names))

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
        return self.queries_of("val")

    def asking(self, positions: Int64[np.ndarray, "B"]) -> Asking:
        """Which of some images ask: the items of scenes, if some find their product in pictures; see `asking`."""
        return asking(self.products[positions], self._in_scene[positions])

    def map_at_r(self, vectors: Float[np.ndarray, "B D"], positions: Int64[np.ndarray, "B"]) -> float:
        """MAP@R of embeddings of some images, of which those `asking` ask."""
        outcome = outcome_within(vectors, self.products[positions], positions, queries=self.asking(positions))
        assert outcome is not None
        return float(average_precision(outcome).mean())

    @cached_property
    def _in_scene(self) -> Bool[np.ndarray, "N"]:
        return self.catalogue.in_scene

    def queries_of(self, split: str) -> Int64[np.ndarray, "M"] | None:
        """Positions of the labelled images of a split, in verticals that have a specialist; None without a pair."""
        positions = np.flatnonzero((self.splits == split) & (self.products >= 0) & (self.verticals >= 0))
        return positions if has_queries(self.products[positions]) else None

    def of_vertical(self, name: str) -> Bool[np.ndarray, "N"]:
        """Which images belong to a vertical."""
        return np.asarray(self.verticals == self.vertical_names.index(name))

    def folder_of(self, *verticals: str) -> str:
        """The folder of a model for some verticals, in a folder with those of others."""
        return folder_name(*verticals, among=self.vertical_names)

    def training_labels(self, vertical: str) -> tuple[int, int, bool]:
        """Products and labelled images of a vertical in train, and whether they are enough for a specialist."""
        number = self.catalogue.verticals.index(vertical)
        here = self.is_train & (self.products >= 0) & (self._numbers == number)
        products, images = np.unique(self.products[here], return_counts=True)
        enough = len(products) >= MIN_PRODUCTS and bool((images > 1).any())
        return len(products), int(images.sum()), enough

    def _split_off_small(self) -> None:
        labels = {name: self.training_labels(name) for name in self.vertical_names}
        self.small_verticals = tuple(name for name, (*_, enough) in labels.items() if not enough)
        self.vertical_names = [name for name in self.vertical_names if name not in self.small_verticals]
        if not self.vertical_names:
            counts = [
                f"{name} ({products} products, {images} images)" for name, (products, images, _) in labels.items()
            ]
            raise BadInputError(
                f"too few labelled images in train to learn from: {', '.join(counts)}; at least one vertical needs "
                f"{MIN_PRODUCTS} products, one of them with 2 images: label some, or give them the split train"
            )

    @property
    def notes(self) -> list[str]:
        """What a run on these images leaves out, and why, in sentences."""
        found = []
        if self.small_verticals:
            found.append(
                f"no specialist for {', '.join(self.small_verticals)}: one needs {MIN_PRODUCTS} products in train, one "
                "of them with 2 images. The joint and the unified model learn from these images, nothing is measured "
                "on them, and they can be indexed like all others"
            )
        if self.queries_of("val") is None:
            found.append(
                "no product has two images in val, so no model can be chosen: each training goes on to its last step, "
                "and the last candidate is taken. Give some products the split val, or build the catalogue without "
                "the column split"
            )
        if self.queries_of("test") is None:
            found.append(
                "no product has two images in test, so nothing is measured. Give some products the split test, or "
                "build the catalogue without the column split"
            )
        return found
