"""Brands that training never has: which images are theirs, and splits that keep some brands out of train."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from univert.core.errors import BadInputError
from univert.core.terminal import progress_bar
from univert.data.catalogue import Catalogue
from univert.data.checks import in_one_form
from univert.data.rows import SourceRow, SourceRows
from univert.data.splits import NO_SPLIT, SPLITS, split_of

_VAL_SHARE = 0.10 / 0.35
"""Of the brands kept out of train, as `split_of` divides the products that are."""


def of_unseen_brands(images: Catalogue, catalogue: Catalogue) -> Bool[np.ndarray, "N"]:
    """Which images have a brand that no train image of a catalogue has.

    None has where no train image has a brand: nothing is known then.
    """
    seen = set(catalogue.column("brand")[catalogue.column("split") == "train"]) - {None}
    unseen = [bool(seen) and brand is not None and brand not in seen for brand in images.column("brand")]
    return np.array(unseen, bool)


def keep_brands_out_of_train(read: Callable[[], SourceRows], share: float) -> SourceRows:
    """Rows with splits by which training never has some of the brands: of these, each is in val or in test alone.

    Products that have none but such brands follow their brand; all others keep their split, whether it is given or
    follows from their name. So an image of such a brand is in no split where its product is elsewhere, as where many
    artists draw the same things; so is one without a product, and a scene of several splits. Which brands are kept out
    follows from their names, but that with most images never is.

    Args:
        read: opens the sources; they are read twice, first for the names alone, which are kept in memory.
        share: of the brands that have a product with two images, about so many are kept out.

    Raises:
        BadInputError: the share is none, or there are too few brands.

    Example:
        >>> names = [(brand, copy) for brand in "ABCDE" for copy in (1, 2)]
        >>> rows = [SourceRow(origin="", vertical="hats", product=f"hat {name}", brand=name) for name, _ in names]
        >>> found = list(keep_brands_out_of_train(lambda: iter(rows), share=0.4))
        >>> sorted({row.split for row in found if row.split})
        ['test', 'val']
    """
    if not 0 < share < 1:
        raise BadInputError(f"unseen brands: the share must lie between 0 and 1, got {share:g}; try 0.2")
    names = _Names()
    with progress_bar("Reading the brands", None) as advance:
        for row in read():
            advance(1)
            if isinstance(row, SourceRow):
                names.add(in_one_form(row))
    places = names.places(share)
    return (names.with_split(in_one_form(row), places) if isinstance(row, SourceRow) else row for row in read())


class _Names:
    """What sources name: the brands of each product, by its pictures, and its split; and how many images there are.

    Images in no split are not counted.
    """

    def __init__(self) -> None:
        self._brands: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._splits: dict[str, str] = {}
        self._images_of_product: Counter[str] = Counter()
        self._images_of_brand: Counter[str] = Counter()

    def add(self, row: SourceRow) -> None:
        is_used = row.split != NO_SPLIT
        for product, _ in _products(row) if is_used else ():
            self._images_of_product[product] += 1
            self._splits.setdefault(product, _own_split(row))
        if row.items is not None:
            return
        if row.product is not None and is_used:
            self._splits[row.product] = _own_split(row)  # a picture knows better than a scene
        if row.brand is not None:
            self._images_of_brand[row.brand] += is_used
            if row.product is not None:
                self._brands[row.product][row.brand] += is_used

    def places(self, share: float) -> dict[str, str]:
        """The brands to keep out of train, and whether each goes to val or test."""
        asked_for: defaultdict[str, list[str]] = defaultdict(list)  # the products with two images, by brand
        for product, brands in self._brands.items():
            for brand, images in brands.items() if self._images_of_product[product] > 1 else ():
                if images:
                    asked_for[brand].append(product)
        largest = max(asked_for, key=lambda brand: (self._images_of_brand[brand], brand), default=None)
        in_turn = sorted(asked_for.keys() - {largest}, key=_hash)
        kept_out = max(2, round(share * len(asked_for)))
        in_val = max(1, round(_VAL_SHARE * kept_out))
        places: dict[str, str] = {}
        for place, most in (("val", in_val), ("test", kept_out - in_val)):
            fit = [
                brand
                for brand in in_turn
                if brand not in places
                and any(len(self._brands[one]) == 1 or self._splits[one] == place for one in asked_for[brand])
            ]
            if not fit:
                raise BadInputError(
                    f"unseen brands: too few brands have a product with two images ({len(asked_for)}): train, val and "
                    f"test need one each, and none is left for {place}; give more images a brand, or leave the "
                    "option out"
                )
            places |= dict.fromkeys(fit[:most], place)
        return places

    def with_split(self, row: SourceRow, places: dict[str, str]) -> SourceRow:
        """The row with another split, where brands kept out of train are concerned."""
        if row.split not in (None, *SPLITS):
            return row
        products = [product for product, _ in _products(row)]
        brands = {row.brand} if row.items is None else {one for name in products for one in self._brands[name]}
        splits = {places[brand] for brand in brands if brand in places}
        followed = {name: self._followed(name, places) for name in products}
        if not splits and not any(followed.values()):
            return row
        splits |= {followed[name] or self._splits[name] for name in products} or {_own_split(row)}
        return replace(row, split=splits.pop() if len(splits) == 1 else NO_SPLIT)

    def _followed(self, product: str, places: dict[str, str]) -> str | None:
        """The place of a product's brand, where all of its brands are kept out of train."""
        brands, own = self._brands[product].keys(), self._splits[product]
        if not brands or not brands <= places.keys():
            return None
        return own if own in {places[brand] for brand in brands} else places[min(brands)]


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass")).digest()


def _products(row: SourceRow) -> list[tuple[str, str]]:
    """The products that a row shows, as far as they are known, each with its vertical."""
    if row.items is None:
        return [] if row.product is None else [(row.product, row.vertical)]
    return [(item.product, item.vertical) for item in row.items if item.product is not None]


def _own_split(row: SourceRow) -> str:
    """What a row says, or else its first product."""
    return row.split or next((split_of(*one) for one in _products(row)), "train")
