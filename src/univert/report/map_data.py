"""The report's map: points, names and pictures as the page's script reads them, and the same in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from univert.metrics.separation import Separation, VerticalSeparation, separation
from univert.report.map_layout import layouts_of, sample_for_map
from univert.report.retrieval_grids import Columns
from univert.report.thumbnails import Atlas, atlas, thumbnails

if TYPE_CHECKING:
    from univert.data.catalogue import Catalogue

POINTS = 2000
"""The most images on the map."""

MEASURED = 18_000
"""The most images behind the numbers of separation, at most `A_VERTICAL` each: 5 s for each space."""

A_VERTICAL = 2000
"""The most images of one vertical, on the map and behind the numbers, as in the unified-embedding paper (FIG. 3)."""

_GRID = 10_000
"""Coordinates are written as whole numbers from -_GRID to _GRID: finer than a screen, shorter than floats."""

_LARGE_CELL_PX, _SMALL_CELL_PX = 64, 48
_LARGE_CELLS = 1200
"""Up to this many points the pictures are larger, beyond it smaller, so that the page stays light."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """A space of embeddings on the page: what it holds, and how far the verticals lie apart in it."""

    title: str
    separation: Separation

    @property
    def by_vertical(self) -> dict[str, VerticalSeparation]:
        """The numbers of each vertical by its name."""
        return {one.vertical: one for one in self.separation.verticals}


@dataclass(frozen=True, kw_only=True)
class MapSection:
    """What the page needs for its map.

    Attributes:
        data: points and names, JSON-able; `panels` holds each space's coordinates.
        pictures: a thumbnail a point, in the points' order.
        spaces: what the panels show, in their order; the model's embeddings are the last.
        images: how many images the evaluated selection holds.
        drawn: how many of them are on the map.
        measured: how many are behind the numbers of separation.
    """

    data: dict[str, Any]
    pictures: Atlas
    spaces: tuple[Space, ...]
    images: int
    drawn: int
    measured: int


def map_section(
    catalogue: Catalogue, columns: Columns, spaces: dict[str, Float[np.ndarray, "N D"]], *, seed: int = 0
) -> MapSection:
    """Sample images, lay them out with t-SNE, and gather their names and pictures.

    Args:
        catalogue: the evaluated selection.
        columns: its names.
        spaces: by title, (N, D) unit vectors of the same rows; the layouts of the others start from the last one's.
        seed: of the sample and t-SNE.
    """
    rows = sample_for_map(columns.vertical, columns.product, per_vertical=A_VERTICAL, total=POINTS, seed=seed)
    many = sample_for_map(columns.vertical, columns.product, per_vertical=A_VERTICAL, total=MEASURED, seed=seed)
    verticals, vertical_codes = _codes([columns.vertical[row] for row in rows])
    products, product_codes = _codes([columns.product[row] for row in rows])
    brands, brand_codes = _codes([columns.brand[row] for row in rows])
    cell_px = _LARGE_CELL_PX if len(rows) <= _LARGE_CELLS else _SMALL_CELL_PX
    pictures = atlas(thumbnails(catalogue, rows.tolist(), size_px=cell_px), len(rows), cell_px=cell_px)
    layouts = layouts_of([space[rows] for space in spaces.values()], seed=seed)
    data = {
        "panels": [_on_grid(points) for points in layouts],
        "grid": _GRID,
        "vertical": vertical_codes,
        "verticals": verticals,
        "product": product_codes,
        "products": products,
        "brand": brand_codes,
        "brands": brands,
        "cell": pictures.cell_px,
        "columns": pictures.columns,
    }
    measured = [columns.vertical[row] for row in many]
    return MapSection(
        data=data,
        pictures=pictures,
        spaces=tuple(
            Space(title=title, separation=separation(space[many], measured)) for title, space in spaces.items()
        ),
        images=len(catalogue),
        drawn=len(rows),
        measured=len(many),
    )


def _on_grid(points: Float[np.ndarray, "N 2"]) -> dict[str, list[int]]:
    whole = np.rint(points * _GRID).astype(int)
    return {"x": whole[:, 0].tolist(), "y": whole[:, 1].tolist()}


def _codes(names: Sequence[str | None]) -> tuple[list[str], list[int]]:
    """Distinct names in sorted order, and each entry's place among them, -1 for None."""
    distinct = sorted({name for name in names if name is not None})
    place = {name: code for code, name in enumerate(distinct)}
    return distinct, [-1 if name is None else place[name] for name in names]
