"""What a run learns from: the images of its verticals, their products, verticals and splits."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int64

from univert.core.errors import BadInputError
from univert.core.files import folder_name
from univert.data.catalogue import Catalogue
from univert.data.unseen_brands import of_unseen_brands
from univert.metrics.inputs import Asking, asking, has_queries
from univert.metrics.per_query import average_precision, outcome_within
from univert.training.recipe import Recipe

MIN_PRODUCTS = 2


class RunImages:
    """The images of a recipe's verticals.

    With `split_off_small`, verticals with too few labels to learn from go to `small_verticals`.

    Attributes:
        catalogue: the images of the recipe's verticals.
        vertical_names: those that have a specialist, sorted; where specialists are divided by source, each vertical's
            sources in its place, as `sofas (photo)`.
        small_verticals: those that have too few labels for one, where they are split off; as far as learning goes,
            their images are like those of `data.unsorted`.

    Raises:
        BadInputError: unknown verticals, or all of them are small.
    """

    small_verticals: tuple[str, ...] = ()
    _undivided: tuple[str, ...] = ()

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
        self._names = catalogue.column("vertical").astype(str)
        if recipe.specialists.by_source:
            self._divide_by_source()
        self._all_names: list[str] = sorted(set(self._names.tolist()))
        self.vertical_names = [name for name in self._all_names if name != recipe.data.unsorted]
        self._check_unsorted(recipe.data.unsorted)
        if split_off_small:
            self._split_off_small()

    def _check_unsorted(self, unsorted: str | None) -> None:
        if unsorted is None:
            return
        if unsorted not in self.catalogue.verticals:
            raise BadInputError(f"data.unsorted: the catalogue has no vertical {unsorted!r}; leave it out")
        labelled = int(((self.products >= 0) & (self._names == unsorted)).sum())
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
        codes = np.array([own.get(name, -1) for name in self._all_names], np.int64)
        return np.asarray(codes[np.searchsorted(self._all_names, self._names)])

    @cached_property
    def splits(self) -> np.ndarray:
        """Split of each image (or None)."""
        return self.catalogue.column("split")

    @cached_property
    def is_train(self) -> Bool[np.ndarray, "N"]:
        """Which images may be learned from."""
        return np.asarray(self.splits == "train")

    @cached_property
    def of_unseen_brands(self) -> Bool[np.ndarray, "N"]:
        """Which images have a brand that none of those to learn from has."""
        return of_unseen_brands(self.catalogue, self.catalogue)

    def names_of(self, positions: Int64[np.ndarray, "B"]) -> list[str]:
        """The verticals of some images by name, as the catalogue has them."""
        return [str(name) for name in self.catalogue.column("vertical")[positions]]

    def specialists_columns(
        self, positions: Int64[np.ndarray, "B"]
    ) -> tuple[Int64[np.ndarray, "B"], list[str], Asking]:
        """Products, verticals and who asks, as far as specialists can be asked.

        Two specialists of one vertical have spaces of their own. So where verticals are divided by source, each image
        asks the others of its vertical and source.
        """
        products = self.products[positions]
        if not self.recipe.specialists.by_source:
            return products, self.names_of(positions), self.asking(positions)
        verticals = self.verticals[positions]
        own = np.where(products < 0, -1, products * len(self.vertical_names) + verticals)
        return own, [self.vertical_names[number] for number in verticals], None

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
        return self._labels(self._names == vertical)

    def _labels(self, here: Bool[np.ndarray, "N"]) -> tuple[int, int, bool]:
        products, images = np.unique(self.products[here & self.is_train & (self.products >= 0)], return_counts=True)
        enough = len(products) >= MIN_PRODUCTS and bool((images > 1).any())
        return len(products), int(images.sum()), enough

    def _divide_by_source(self) -> None:
        """Name each image's vertical by its source, too, where there are labels enough for each source of it."""
        sources = self.catalogue.column("source")
        divided: np.ndarray = np.array(
            [f"{name} ({source})" for name, source in zip(self._names, sources, strict=True)]
        )
        undivided = []
        for vertical in self.catalogue.verticals:
            here = self._names == vertical
            parts = set(divided[here])
            if len(parts) < 2 or not all(self._labels(divided == part)[2] for part in parts):
                divided[here] = vertical
                undivided.append(vertical)
        if len(undivided) == len(self.catalogue.verticals):
            raise BadInputError(
                "specialists.by_source: no vertical has two sources with labels enough to learn from; leave it out, or "
                "give the images their source"
            )
        self._names, self._undivided = divided, tuple(undivided)

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
        if self._undivided:
            found.append(
                f"not divided by source: {', '.join(self._undivided)}. Each source needs {MIN_PRODUCTS} products in "
                "train, one of them with 2 images"
            )
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
