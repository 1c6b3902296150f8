"""The report's retrieval grids and worst failures: a fair sample of queries and what a gallery answers, in pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int64

from univert.metrics.inputs import has_queries, label_codes
from univert.metrics.ranking import rank_queries
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


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The names in a catalogue's rows, each (N,), and the codes of the products, -1 for an unlabelled image."""

    vertical: list[str]
    product: list[str | None]
    brand: list[str | None]
    codes: Int64[np.ndarray, "N"]

    @classmethod
    def of(cls, catalogue: Catalogue) -> Columns:
        """Read them once, as lists."""
        product = catalogue.column("product").tolist()
        return cls(
            vertical=catalogue.column("vertical").tolist(),
            product=product,
            brand=catalogue.column("brand").tolist(),
            codes=label_codes(product)[0],
        )

    def gallery(self, vertical: str | None = None) -> Int64[np.ndarray, "M"]:
        """Labelled rows, of one vertical or of all."""
        here = self.codes >= 0
        return np.flatnonzero(here if vertical is None else here & (np.asarray(self.vertical) == vertical))

    def queries(self, gallery: Int64[np.ndarray, "M"]) -> Int64[np.ndarray, "Q"]:
        """Rows of a gallery whose product has another image in it."""
        _, place, images = np.unique(self.codes[gallery], return_inverse=True, return_counts=True)
        return gallery[images[place] > 1]


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One image of a ranked answer: its row, its rank from 1, and whether it shows the query's product."""

    position: int
    rank: int
    right: bool


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A query and what a gallery answers.

    Attributes:
        query: the query's row.
        hits: the nearest images, best first, the query itself left out.
        first_right: the nearest image of the query's product, which need not be among the hits.
        right_in_gallery: how many images of the product the gallery holds.
    """

    query: int
    hits: tuple[Hit, ...]
    first_right: Hit
    right_in_gallery: int


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
    """

    uri: str
    product: str
    vertical: str | None
    brand: str | None
    rank: int | None = None
    right: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """A query's tile, its neighbours' tiles, and the first right answer where that ranks below them."""

    query: Tile
    hits: tuple[Tile, ...]
    first_right: Tile | None
    first_right_rank: int
    right_in_gallery: int


@dataclass(frozen=True, kw_only=True)
class RetrievalGrid:
    """Rankings in one gallery.

    Attributes:
        title: the vertical, or None for the merged gallery.
        gallery_images: how many images the gallery holds.
        queries: how many queries there are in it.
        rankings: some of them.
    """

    title: str | None
    gallery_images: int
    queries: int
    rankings: tuple[Ranking, ...]


def retrieval_grids(
    catalogue: Catalogue, columns: Columns, vectors: Float[np.ndarray, "N D"], *, seed: int = 0
) -> tuple[list[RetrievalGrid], int]:
    """Rankings for a seeded random sample of queries: of the merged gallery, then of each vertical's own.

    Returns:
        the grids, and how many further verticals with queries have none.
    """
    names = sorted(set(columns.vertical))
    queries_in = {name: len(columns.queries(columns.gallery(name))) for name in names}
    asked = sorted((name for name in names if queries_in[name]), key=lambda name: (-queries_in[name], name))
    kept = sorted(asked[:MOST_VERTICALS])
    titles: list[str | None] = [None, *kept] if len(names) > 1 and asked else [*kept]
    grids = []
    for index, title in enumerate(titles):
        gallery = columns.gallery(title)
        queries = columns.queries(gallery)
        # A lone vertical gets the places that the merged gallery would have had.
        wanted = MERGED_QUERIES if title is None or len(names) == 1 else QUERIES_A_VERTICAL
        drawn = sample_queries(queries, columns.codes, wanted, np.random.default_rng([seed, index]))
        answers = answer_queries(vectors, columns.codes, drawn, gallery, hits=NEIGHBOURS)
        rankings = _rankings(catalogue, columns, answers, name_verticals=title is None, with_first_right=False)
        grids.append(RetrievalGrid(title=title, gallery_images=len(gallery), queries=len(queries), rankings=rankings))
    return grids, len(asked) - len(kept)


def worst_failures(catalogue: Catalogue, columns: Columns, vectors: Float[np.ndarray, "N D"]) -> RetrievalGrid:
    """Queries of the merged gallery whose first right answer ranks worst, worst first, one a product."""
    gallery = columns.gallery()
    worst = worst_queries(vectors, columns.codes, FAILURES)
    answers = answer_queries(vectors, columns.codes, worst, gallery, hits=FAILURE_NEIGHBOURS)
    several = len(set(columns.vertical)) > 1
    rankings = _rankings(catalogue, columns, answers, name_verticals=several, with_first_right=True)
    queries = len(columns.queries(gallery))
    return RetrievalGrid(title=None, gallery_images=len(gallery), queries=queries, rankings=rankings)


def sample_queries(
    candidates: Int64[np.ndarray, "Q"], codes: Int64[np.ndarray, "N"], count: int, rng: np.random.Generator
) -> list[int]:
    """Draw queries at random, each of another product; fewer where there are fewer products."""
    drawn: dict[int, int] = {}
    for row in rng.permutation(candidates):
        if len(drawn) == count:
            break
        drawn.setdefault(int(codes[row]), int(row))
    return list(drawn.values())


def worst_queries(vectors: Float[np.ndarray, "N D"], codes: Int64[np.ndarray, "N"], count: int) -> list[int]:
    """The queries whose first right answer ranks worst, worst first, one a product, misses only."""
    if not has_queries(codes):
        return []
    outcome = rank_queries(vectors, codes, with_average_precision=False)
    worst: dict[int, int] = {}
    for place in np.argsort(-outcome.rank_of_first_hit, kind="stable"):
        if outcome.rank_of_first_hit[place] == 1 or len(worst) == count:
            break
        worst.setdefault(int(outcome.products[place]), int(outcome.rows[place]))
    return list(worst.values())


def answer_queries(
    vectors: Float[np.ndarray, "N D"],
    codes: Int64[np.ndarray, "N"],
    queries: Sequence[int],
    gallery: Int64[np.ndarray, "M"],
    *,
    hits: int,
) -> list[Answer]:
    """Rank a gallery for each query, leaving the query itself out; equal distances rank the wrong image first.

    Args:
        vectors: (N, D) unit vectors.
        codes: (N,) products.
        queries: rows whose product has another image in the gallery.
        gallery: rows to search.
        hits: nearest images to return.
    """
    answers = []
    for query in queries:
        others = gallery[gallery != query]
        right = codes[others] == codes[query]
        order = np.lexsort((right, -(vectors[others] @ vectors[query])))
        ranked = [
            Hit(position=int(others[order[place]]), rank=place + 1, right=bool(right[order[place]]))
            for place in (*range(min(hits, len(order))), int(right[order].argmax()))
        ]
        answers.append(
            Answer(query=query, hits=tuple(ranked[:-1]), first_right=ranked[-1], right_in_gallery=int(right.sum()))
        )
    return answers


def _rankings(
    catalogue: Catalogue, columns: Columns, answers: Iterable[Answer], *, name_verticals: bool, with_first_right: bool
) -> tuple[Ranking, ...]:
    answers = list(answers)
    shown = {one.query for one in answers} | {hit.position for one in answers for hit in one.hits}
    if with_first_right:
        shown |= {one.first_right.position for one in answers}
    positions = sorted(shown)
    images = thumbnails(catalogue, positions, size_px=THUMBNAIL_PX)
    pictures = {position: data_uri(image) for position, image in zip(positions, images, strict=True)}

    def tile(position: int, hit: Hit | None = None) -> Tile:
        return Tile(
            uri=pictures[position],
            product=columns.product[position] or "unlabelled",
            vertical=columns.vertical[position] if name_verticals else None,
            brand=columns.brand[position],
            rank=hit.rank if hit else None,
            right=hit.right if hit else None,
        )

    return tuple(
        Ranking(
            query=tile(one.query),
            hits=tuple(tile(hit.position, hit) for hit in one.hits),
            first_right=(
                tile(one.first_right.position, one.first_right)
                if with_first_right and one.first_right.rank > len(one.hits)
                else None
            ),
            first_right_rank=one.first_right.rank,
            right_in_gallery=one.right_in_gallery,
        )
        for one in answers
    )
