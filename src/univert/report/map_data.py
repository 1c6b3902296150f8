"""The report's map: points, names and pictures as the page's script reads them, and the same in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from univert.metrics.separation import separation
from univert.report.map_layout import layouts_of, sample_for_map
from univert.report.retrieval_grids import Columns
from univert.report.thumbnails import atlas, thumbnails

if TYPE_CHECKING:
    from univert.data.catalogue import Catalogue

A_VERTICAL = 2000
"""The most images of one vertical on the map, as in the unified-embedding paper (FIG. 3)."""

POINTS = 20_000
"""The most images on the map: ten such verticals."""

PICTURES = 2000
"""So many of them have a picture, in the same shares: pictures are what makes the page heavy."""

_GRID = 10_000
"""Coordinates are written as whole numbers from -_GRID to _GRID: finer than a screen, shorter than floats."""

_CELL_PX = 48


def map_section(
    catalogue: Catalogue, columns: Columns, spaces: dict[str, Float[np.ndarray, "N D"]], *, seed: int = 0
) -> dict[str, Any]:
    """Sample images, lay them out with t-SNE, and gather their names and pictures.

    `spaces` has, by title, (N, D) unit vectors of the catalogue's rows; the other layouts start from the last one's.

    Returns:
        `data`: points and names for the page's script, in it `panels`, each space's coordinates, and `picture`, the
        place of each point's thumbnail (-1: it has none); `pictures`: the thumbnails as one picture; `spaces`: by
        title, how far the verticals lie apart among the images drawn.
    """
    rows = sample_for_map(columns.vertical, columns.product, per_vertical=A_VERTICAL, total=POINTS, seed=seed)
    few = sample_for_map(columns.vertical, columns.product, per_vertical=A_VERTICAL, total=PICTURES, seed=seed)
    place = {row: number for number, row in enumerate(few.tolist())}
    drawn = [columns.vertical[row] for row in rows]
    pictures, in_a_row = atlas(thumbnails(catalogue, few.tolist(), size_px=_CELL_PX), len(few), cell_px=_CELL_PX)
    data: dict[str, Any] = {
        "panels": [_on_grid(points) for points in layouts_of([space[rows] for space in spaces.values()], seed=seed)],
        "grid": _GRID,
        "picture": [place.get(row, -1) for row in rows.tolist()],
        "cell": _CELL_PX,
        "columns": in_a_row,
    }
    data["verticals"], data["vertical"] = _codes(drawn)
    data["products"], data["product"] = _codes([columns.product[row] for row in rows])
    data["brands"], data["brand"] = _codes([columns.brand[row] for row in rows])
    return {
        "data": data,
        "pictures": pictures,
        "spaces": {title: separation(space[rows], drawn) for title, space in spaces.items()},
    }


def _on_grid(points: Float[np.ndarray, "N 2"]) -> dict[str, list[int]]:
    whole = np.rint(points * _GRID).astype(int)
    return {"x": whole[:, 0].tolist(), "y": whole[:, 1].tolist()}


def _codes(names: Sequence[str | None]) -> tuple[list[str], list[int]]:
    """Distinct names in sorted order, and each entry's place among them, -1 for None."""
    distinct = sorted({name for name in names if name is not None})
    place = {name: code for code, name in enumerate(distinct)}
    return distinct, [-1 if name is None else place[name] for name in names]
