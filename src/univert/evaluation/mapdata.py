"""The report's map: points, names and pictures as the page's script reads them, and the same as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from univert.evaluation.gallery import Columns
from univert.evaluation.maps import Surroundings, sample_for_map, surroundings, tsne_map
from univert.evaluation.thumbnails import Atlas, atlas, thumbnails

if TYPE_CHECKING:
    from univert.data.catalogue import Catalogue

_GRID = 10_000
"""Coordinates are written as whole numbers from -_GRID to _GRID: finer than a screen, shorter than floats."""

_LARGE_CELL_PX, _SMALL_CELL_PX = 64, 48
_LARGE_CELLS = 1200
"""Up to this many points the pictures are larger, beyond it smaller, so that the page stays light."""


@dataclass(frozen=True, kw_only=True)
class MapSection:
    """What the page needs for its map.

    Attributes:
        data: points and names, JSON-able.
        pictures: a thumbnail a point, in the points' order.
        text: the map in words, a line a vertical.
        images: how many images the evaluated selection holds, of which `len(data["x"])` are drawn.
    """

    data: dict[str, Any]
    pictures: Atlas
    text: list[Surroundings]
    images: int


def map_section(
    catalogue: Catalogue, columns: Columns, vectors: npt.NDArray[np.float32], *, seed: int = 0
) -> MapSection | None:
    """Sample images, lay them out with t-SNE, and gather their names and pictures; null without images."""
    if not len(catalogue):
        return None
    rows = sample_for_map(columns.vertical, columns.product, seed=seed)
    points = np.rint(tsne_map(vectors[rows], seed=seed) * _GRID).astype(int)
    verticals = [columns.vertical[row] for row in rows]
    names = sorted(set(verticals))
    place = {name: index for index, name in enumerate(names)}
    products, product_codes = _codes([columns.product[row] for row in rows])
    brands, brand_codes = _codes([columns.brand[row] for row in rows])
    cell_px = _LARGE_CELL_PX if len(rows) <= _LARGE_CELLS else _SMALL_CELL_PX
    pictures = atlas(thumbnails(catalogue, rows.tolist(), size_px=cell_px), len(rows), cell_px=cell_px)
    data = {
        "x": points[:, 0].tolist(),
        "y": points[:, 1].tolist(),
        "grid": _GRID,
        "vertical": [place[vertical] for vertical in verticals],
        "verticals": names,
        "product": product_codes,
        "products": products,
        "brand": brand_codes,
        "brands": brands,
        "cell": pictures.cell_px,
        "columns": pictures.columns,
    }
    return MapSection(
        data=data, pictures=pictures, text=surroundings(vectors[rows], verticals), images=len(catalogue)
    )


def _codes(names: Sequence[str | None]) -> tuple[list[str], list[int]]:
    """Distinct names, and each entry's place among them, -1 for null."""
    place: dict[str, int] = {}
    codes = [-1 if name is None else place.setdefault(name, len(place)) for name in names]
    return list(place), codes
