"""The report's retrieval grids and worst failures: a fair sample of queries and what a gallery answers, in pictures."""

from __future__ import annotations

from collections.abc import Sequence
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
class RankedImage:
    """One image of a ranked answer: its row, its rank from 1, and whether it shows the query's product."""

    position: int
    rank: int
    right: bool


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A query and what a gallery answers.

    Attributes:
        hits: the nearest images, best first, the query itself left out.
        first_right: the nearest image of the query's product, which need not be among the hits.
        right_in_gallery: how many images of the product the gallery holds.
    """

    query: int
    hits: tuple[RankedImage, ...]
    first_right: RankedImage
    right_in_gallery: int


@dataclass(frozen=True, kw_only=True)
class RetrievalGrid:
    """Answers of one gallery in pictures.

    Attributes:
        title: the vertical, or None for the merged gallery.
        gallery_images: how many images the gallery holds.
        queries: how many queries there are in it.
        answers: some of them.
        pictures: by row, a thumbnail of every image in the answers.
    """

    title: str | None
    gallery_images: int
    queries: int
    answers: list[Answer]
    pictures: dict[int, str]


def retrieval_grids(
    catalogue: Catalogue, columns: Columns, vectors: Float[np.ndarray, "N D"], *, seed: int = 0
) -> tuple[list[RetrievalGrid], int]:
    """Answers to a seeded random sample of queries: of the merged gallery, then of each vertical's own.

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
        candidates = columns.queries(columns.gallery(title))
        # A lone vertical gets the places that the merged gallery would have had.
        wanted = MERGED_QUERIES if title is None or len(names) == 1 else QUERIES_A_VERTICAL
        drawn = sample_queries(candidates, columns.codes, wanted, np.random.default_rng([seed, index]))
        grids.append(_grid(catalogue, columns, vectors, drawn, title, hits=NEIGHBOURS))
    return grids, len(asked) - len(kept)


def sample_queries(
    candidates: Int64[np.ndarray, "Q"], codes: Int64[np.ndarray, "N"], count: int, rng: np.random.Generator
) -> list[int]:
    """Draw queries at random, each of another product; fewer where there are fewer products."""
    shuffled = rng.permutation(candidates)
    _, first = np.unique(codes[shuffled], return_index=True)
    return [int(row) for row in shuffled[np.sort(first)[:count]]]


def answer_queries(
    vectors: Float[np.ndarray, "N D"],
    codes: Int64[np.ndarray, "N"],
    queries: Sequence[int],
    gallery: Int64[np.ndarray, "M"],
    *,
    hits: int,
) -> list[Answer]:
    """Rank a gallery for each query, leaving the query itself out; equal distances rank the wrong image first.

    Vectors are of unit length; `queries` and `gallery` are rows of them. The product of each query has another image in
    the gallery.
    """
    answers = []
    for query in queries:
        others = gallery[gallery != query]
        right = codes[others] == codes[query]
        order = np.lexsort((right, -(vectors[others] @ vectors[query])))
        ranked = [
            RankedImage(position=int(others[order[place]]), rank=place + 1, right=bool(right[order[place]]))
            for place in (*range(min(hits, len(order))), int(right[order].argmax()))
        ]
        answers.append(
            Answer(query=query, hits=tuple(ranked[:-1]), first_right=ranked[-1], right_in_gallery=int(right.sum()))
        )
    return answers


def worst_failures(catalogue: Catalogue, columns: Columns, vectors: Float[np.ndarray, "N D"]) -> RetrievalGrid:
    """Queries of the merged gallery whose first right answer ranks worst, worst first, one a product, misses only."""
    worst: list[int] = []
    if has_queries(columns.codes):
        outcome = rank_queries(vectors, columns.codes, with_average_precision=False)
        missed = np.flatnonzero(outcome.rank_of_first_hit > 1)
        missed = missed[np.argsort(-outcome.rank_of_first_hit[missed], kind="stable")]
        _, first = np.unique(outcome.products[missed], return_index=True)
        worst = outcome.rows[missed[np.sort(first)[:FAILURES]]].tolist()
    return _grid(catalogue, columns, vectors, worst, None, hits=FAILURE_NEIGHBOURS)


def _grid(
    catalogue: Catalogue,
    columns: Columns,
    vectors: Float[np.ndarray, "N D"],
    queries: Sequence[int],
    title: str | None,
    *,
    hits: int,
) -> RetrievalGrid:
    gallery = columns.gallery(title)
    answers = answer_queries(vectors, columns.codes, queries, gallery, hits=hits)
    shown = sorted(
        {row for one in answers for row in (one.query, one.first_right.position, *(hit.position for hit in one.hits))}
    )
    images = thumbnails(catalogue, shown, size_px=THUMBNAIL_PX)
    return RetrievalGrid(
        title=title,
        gallery_images=len(gallery),
        queries=len(columns.queries(gallery)),
        answers=answers,
        pictures={row: data_uri(image) for row, image in zip(shown, images, strict=True)},
    )
