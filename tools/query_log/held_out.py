"""What nothing may see while a query parser is built: two languages, and all names of a quarter of the products."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from univert.data.names import ProductName

LANGUAGES = 2
PRODUCTS_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The languages and the products that are left out."""

    languages: tuple[str, ...]
    products: frozenset[str]

    def knows(self, name: ProductName) -> bool:
        """Whether a parser may see this name."""
        return name.language not in self.languages and name.product not in self.products


def fraction(*parts: object) -> float:
    """A number in [0, 1) that follows from `parts` alone."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def hold_out(names: Iterable[ProductName]) -> HeldOut:
    """Choose by a hash, so that a longer table or another order changes nothing.

    Languages with a sibling (pt and pt-PT) and English stay. A product and its other finishes go together.
    """
    rows = list(names)
    products = {row.product for row in rows}
    languages = sorted({row.language for row in rows if row.language})
    roots = [language.partition("-")[0] for language in languages]
    alone = [language for language in languages if roots.count(language.partition("-")[0]) == 1 and language != "en"]
    return HeldOut(
        languages=tuple(sorted(sorted(alone, key=lambda name: fraction("log", "language", name))[:LANGUAGES])),
        products=frozenset(p for p in products if fraction("log", "product", model_of(p, products)) < PRODUCTS_SHARE),
    )


def model_of(product: str, products: Collection[str]) -> str:
    """The product that `product` is another finish of, or itself."""
    model = product.rpartition("-")[0]
    return model if model in products else product
