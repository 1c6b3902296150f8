"""Products of the glyph data set: which characters have enough drawings of their own, and whose are taken."""

from __future__ import annotations

import collections
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glyph_fonts import Face
from glyph_scripts import VERTICALS, vertical_of

PLACEHOLDER = 8
"""Pixels that a face shows for this many characters of a script stand for "no glyph"."""

Drawings = dict[int, list[tuple[int, int, bool]]]
"""Code point to (face, hash of the pixels, unlike those before) of each drawing; see `survey`."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """A character, and the faces that draw its images."""

    code: int
    vertical: str
    faces: tuple[Face, ...]


def choose(drawings: Drawings, faces: Sequence[Face], *, fonts_per_product: int, min_fonts: int) -> list[Product]:
    """The products among all characters, in order of their code points, and the faces of each."""
    verticals: dict[str, list[int]] = collections.defaultdict(list)
    for code in sorted(drawings):
        verticals[vertical_of(chr(code)) or ""].append(code)
    products = []
    for vertical, codes in verticals.items():
        good = without_placeholders({code: drawings[code] for code in codes})
        enough = {code: found for code, found in good.items() if sum(distinct for _, _, distinct in found) >= min_fonts}
        for code in enough.keys() - repeated_characters(enough):
            chosen = [faces[face] for face, _, distinct in enough[code] if distinct][:fonts_per_product]
            products.append(Product(code=code, vertical=vertical, faces=tuple(sorted(chosen))))
    return sorted(products, key=lambda product: product.code)


def without_placeholders(drawings: Drawings) -> Drawings:
    """Leave out the drawings that a face repeats for `PLACEHOLDER` characters."""
    times = collections.Counter((face, digest) for found in drawings.values() for face, digest, _ in found)
    return {
        code: [drawing for drawing in found if times[drawing[:2]] < PLACEHOLDER] for code, found in drawings.items()
    }


def repeated_characters(drawings: Drawings) -> set[int]:
    """Characters that more than half of the fonts draw with the very pixels of an earlier character."""
    same: dict[tuple[int, int], list[int]] = collections.defaultdict(list)
    for code, found in sorted(drawings.items()):
        for face, digest, _ in found:
            same[face, digest].append(code)
    pairs = collections.Counter(
        (first, later) for codes in same.values() for later in codes for first in codes if first < later
    )
    faces = {code: {face for face, _, _ in found} for code, found in drawings.items()}
    return {later for (first, later), count in pairs.items() if 2 * count > len(faces[first] & faces[later])}


def limited(products: list[Product], limit: int | None, seed: int) -> list[Product]:
    """At most `limit` products of each vertical, a random choice."""
    if limit is None:
        return products
    chosen: list[Product] = []
    for vertical in VERTICALS:
        own = [product for product in products if product.vertical == vertical]
        chosen += random.Random(f"{seed} {vertical}").sample(own, min(limit, len(own)))  # noqa: S311
    return sorted(chosen, key=lambda product: product.code)


def table(products: list[Product]) -> list[dict[str, Any]]:
    """Counts of each vertical and of all."""
    rows = []
    for vertical in (*sorted({product.vertical for product in products}), "all"):
        own = [product for product in products if vertical in (product.vertical, "all")]
        families = {face.family for product in own for face in product.faces}
        images = sum(len(product.faces) for product in own)
        rows.append({"script": vertical, "products": len(own), "images": images, "fonts": len(families)})
    return rows
