"""The report's map: points, names and pictures as the page's script reads them, and the same as numbers and text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from univert.metrics.separation import Separation, VerticalSeparation, separation
from univert.report.map_layout import Surroundings, sample_for_map, surroundings, tsne_map
from univert.report.retrieval_grids import Columns
from univert.report.thumbnails import Atlas, atlas, thumbnails

if TYPE_CHECKING:
    from univert.data.catalogue import Catalogue

TARGETS = "Learning targets"
"""What the first panel shows, where nobody says otherwise."""

POINTS = 3000
"""The most images on the map: 9 s of t-SNE for each of the two layouts on one core, and 3 MB of pictures."""

MEASURED = 18_000
"""The most images behind the numbers of separation, at most `A_VERTICAL` each: 5 s for each space."""

A_VERTICAL = 2000
"""The most images of one vertical, on the map and behind the numbers, as in the document (Unified FIG. 3)."""

_GRID = 10_000
"""Coordinates are written as whole numbers from -_GRID to _GRID: finer than a screen, shorter than floats."""

_LARGE_CELL_PX, _SMALL_CELL_PX = 64, 48
_LARGE_CELLS = 1200
"""Up to this many points the pictures are larger, beyond it smaller, so that the page stays light."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """One space of embeddings on the page.

    Attributes:
        title: what it holds.
        separation: how far the verticals lie apart in it.
    """

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
        text: the unified space in words, a line a vertical.
        spaces: what the panels show, in their order: the learning targets if they are there, and the model's
            embeddings, always last.
        images: how many images the evaluated selection holds.
        drawn: how many of them are on the map.
        measured: how many are behind the numbers of separation.
    """

    data: dict[str, Any]
    pictures: Atlas
    text: list[Surroundings]
    spaces: tuple[Space, ...]
    images: int
    drawn: int
    measured: int


def map_section(
    catalogue: Catalogue,
    columns: Columns,
    vectors: npt.NDArray[np.float32],
    *,
    targets: npt.NDArray[np.float32] | None = None,
    targets_title: str = TARGETS,
    seed: int = 0,
) -> MapSection | None:
    """Sample images, lay them out with t-SNE, and gather their names and pictures; None without images.

    Args:
        catalogue: the evaluated selection.
        columns: its names.
        vectors: (N, D) unit vectors of the model.
        targets: (N, D2) learning targets of the same rows, for a second panel; its layout starts from the first's.
        targets_title: what they are called.
        seed: of the sample and t-SNE.
    """
    if not len(catalogue):
        return None
    rows = sample_for_map(columns.vertical, columns.product, per_vertical=A_VERTICAL, total=POINTS, seed=seed)
    many = sample_for_map(columns.vertical, columns.product, per_vertical=A_VERTICAL, total=MEASURED, seed=seed)
    named = {} if targets is None else {targets_title: targets}
    named["Unified embeddings" if named else "Embeddings"] = vectors
    verticals = [columns.vertical[row] for row in rows]
    names = sorted(set(verticals))
    place = {name: index for index, name in enumerate(names)}
    products, product_codes = _codes([columns.product[row] for row in rows])
    brands, brand_codes = _codes([columns.brand[row] for row in rows])
    cell_px = _LARGE_CELL_PX if len(rows) <= _LARGE_CELLS else _SMALL_CELL_PX
    pictures = atlas(thumbnails(catalogue, rows.tolist(), size_px=cell_px), len(rows), cell_px=cell_px)
    layouts = layouts_of([space[rows] for space in named.values()], seed=seed)
    data = {
        "panels": [_on_grid(points) for points in layouts],
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
    measured = [columns.vertical[row] for row in many]
    return MapSection(
        data=data,
        pictures=pictures,
        text=surroundings(vectors[rows], verticals),
        spaces=tuple(
            Space(title=title, separation=separation(space[many], measured)) for title, space in named.items()
        ),
        images=len(catalogue),
        drawn=len(rows),
        measured=len(many),
    )


def layouts_of(spaces: Sequence[npt.NDArray[np.float32]], *, seed: int = 0) -> list[npt.NDArray[np.float32]]:
    """Lay several spaces of the same images out: the last by itself, the others starting from its places.

    Args:
        spaces: (N, D) each; D may differ.
        seed: of t-SNE.
    """
    last = tsne_map(spaces[-1], seed=seed)
    return [*(tsne_map(space, start=last, seed=seed) for space in spaces[:-1]), last]


def _on_grid(points: npt.NDArray[np.float32]) -> dict[str, list[int]]:
    whole = np.rint(points * _GRID).astype(int)
    return {"x": whole[:, 0].tolist(), "y": whole[:, 1].tolist()}


def _codes(names: Sequence[str | None]) -> tuple[list[str], list[int]]:
    """Distinct names, and each entry's place among them, -1 for None."""
    place: dict[str, int] = {}
    codes = [-1 if name is None else place.setdefault(name, len(place)) for name in names]
    return list(place), codes
