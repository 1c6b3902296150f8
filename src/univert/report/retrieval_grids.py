"""The report's retrieval grids and worst failures: rankings with their pictures and names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from univert.report.examples import Neighbour, Retrieval, possible_queries, retrieve, sample_queries, worst_queries
from univert.report.thumbnails import data_uri, thumbnails

if TYPE_CHECKING:
    from univert.data.catalogue import Catalogue

THUMBNAIL_PX = 88
NEIGHBOURS = 8
MERGED_QUERIES = 8
QUERIES_A_VERTICAL = 4
MOST_VERTICALS = 16
"""Verticals with a grid of their own, those with most queries first."""
FAILURES = 12
FAILURE_NEIGHBOURS = 3
FAILURES_LOOKED_AT = 2000
"""Queries among which the worst are sought: a sample where there are more."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The names in a catalogue's rows, each (N,), None as None."""

    vertical: list[str]
    product: list[str | None]
    brand: list[str | None]

    @classmethod
    def of(cls, catalogue: Catalogue) -> Columns:
        """Read them once, as lists."""
        return cls(
            vertical=catalogue.column("vertical").tolist(),
            product=catalogue.column("product").tolist(),
            brand=catalogue.column("brand").tolist(),
        )

    def gallery(self, vertical: str | None = None) -> npt.NDArray[np.int64]:
        """Labelled rows, of one vertical or of all."""
        rows = [
            row
            for row, product in enumerate(self.product)
            if product is not None and vertical in (None, self.vertical[row])
        ]
        return np.asarray(rows, dtype=np.int64)

    def queries(self, gallery: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Rows of a gallery whose product has another image in it."""
        queries: npt.NDArray[np.int64] = gallery[possible_queries([self.product[row] for row in gallery])]
        return queries


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One picture of a grid with its caption.

    Attributes:
        uri: the thumbnail.
        product: its product's name.
        vertical: its vertical; None where that goes without saying.
        brand: its brand; None if unknown.
        rank: its place in the ranking; None for the query.
        right: whether it shows the query's product; None for the query.
        distance: squared Euclidean distance to the query; None for the query.
    """

    uri: str
    product: str
    vertical: str | None
    brand: str | None
    rank: int | None = None
    right: bool | None = None
    distance: float | None = None


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """A query's tile, its neighbours' tiles, and the first right answer where that ranks below them."""

    query: Tile
    hits: tuple[Tile, ...]
    first_right: Tile | None
    first_right_rank: int
    right_in_gallery: int


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rankings in one gallery.

    Attributes:
        title: the vertical, or None for the merged gallery.
        gallery_images: how many images the gallery holds.
        queries: how many queries the sample was drawn from.
        rankings: the sample.
    """

    title: str | None
    gallery_images: int
    queries: int
    rankings: tuple[Ranking, ...]


@dataclass(frozen=True, kw_only=True)
class Failures:
    """The worst queries of the merged gallery, and how many were looked at."""

    looked_at: int
    queries: int
    gallery_images: int
    rankings: tuple[Ranking, ...]


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The grids of a report, and how many verticals with queries have none."""

    groups: tuple[Group, ...]
    left_out: int


def retrieval_groups(
    catalogue: Catalogue, columns: Columns, vectors: npt.NDArray[np.float32], *, seed: int = 0
) -> Groups:
    """Rankings for a seeded random sample of queries: of the merged gallery, then of each vertical's own."""
    names = sorted(set(columns.vertical))
    found = {name: (gallery := columns.gallery(name), columns.queries(gallery)) for name in names}
    asked = [name for name in names if len(found[name][1])]
    kept = sorted(sorted(asked, key=lambda name: (-len(found[name][1]), name))[:MOST_VERTICALS])
    merged = columns.gallery()
    plan: list[tuple[str | None, npt.NDArray[np.int64], npt.NDArray[np.int64], int]] = []
    if len(names) > 1 and asked:
        plan.append((None, merged, columns.queries(merged), MERGED_QUERIES))
    # A lone vertical gets the places that the merged gallery would have had.
    each = QUERIES_A_VERTICAL if len(names) > 1 else MERGED_QUERIES
    plan.extend((name, *found[name], each) for name in kept)
    retrieved = []
    for index, (_, gallery, queries, wanted) in enumerate(plan):
        drawn = sample_queries(queries, columns.product, wanted, np.random.default_rng([seed, index]))
        retrieved.append(retrieve(vectors, columns.product, drawn, gallery, k=NEIGHBOURS))
    pictures = _pictures(catalogue, [one for group in retrieved for one in group], with_first_right=False)
    groups = tuple(
        Group(
            title=title,
            gallery_images=len(gallery),
            queries=len(queries),
            rankings=tuple(
                _ranking(one, columns, pictures, name_verticals=title is None, with_first_right=False) for one in group
            ),
        )
        for (title, gallery, queries, _), group in zip(plan, retrieved, strict=True)
    )
    return Groups(groups=groups, left_out=len(asked) - len(kept))


def failures(catalogue: Catalogue, columns: Columns, vectors: npt.NDArray[np.float32], *, seed: int = 0) -> Failures:
    """Queries of the merged gallery whose first right answer ranks worst, worst first, one a product."""
    gallery = columns.gallery()
    queries = columns.queries(gallery)
    looked_at = queries
    if len(queries) > FAILURES_LOOKED_AT:
        looked_at = np.sort(np.random.default_rng(seed).choice(queries, FAILURES_LOOKED_AT, replace=False))
    worst = worst_queries(vectors, columns.product, looked_at, gallery, count=FAILURES)
    retrieved = retrieve(vectors, columns.product, worst, gallery, k=FAILURE_NEIGHBOURS)
    pictures = _pictures(catalogue, retrieved, with_first_right=True)
    several = len(set(columns.vertical)) > 1
    return Failures(
        looked_at=len(looked_at),
        queries=len(queries),
        gallery_images=len(gallery),
        rankings=tuple(
            _ranking(one, columns, pictures, name_verticals=several, with_first_right=True) for one in retrieved
        ),
    )


def _pictures(catalogue: Catalogue, retrievals: Iterable[Retrieval], *, with_first_right: bool) -> dict[int, str]:
    shown: set[int] = set()
    for one in retrievals:
        shown.update((one.query, *(hit.position for hit in one.hits)))
        if with_first_right:
            shown.add(one.first_right.position)
    positions = sorted(shown)
    images = thumbnails(catalogue, positions, size_px=THUMBNAIL_PX)
    return {position: data_uri(image) for position, image in zip(positions, images, strict=True)}


def _ranking(
    one: Retrieval, columns: Columns, pictures: dict[int, str], *, name_verticals: bool, with_first_right: bool
) -> Ranking:
    def tile(position: int, neighbour: Neighbour | None = None) -> Tile:
        return Tile(
            uri=pictures[position],
            product=columns.product[position] or "unlabelled",
            vertical=columns.vertical[position] if name_verticals else None,
            brand=columns.brand[position],
            rank=neighbour.rank if neighbour else None,
            right=neighbour.right if neighbour else None,
            distance=neighbour.distance if neighbour else None,
        )

    below = with_first_right and one.first_right.rank > len(one.hits)
    return Ranking(
        query=tile(one.query),
        hits=tuple(tile(hit.position, hit) for hit in one.hits),
        first_right=tile(one.first_right.position, one.first_right) if below else None,
        first_right_rank=one.first_right.rank,
        right_in_gallery=one.right_in_gallery,
    )
