"""From a query log to image triplets, the whole of it: FIG. 6 of the unified-embedding paper before people rate.

Each stage writes a table in the output folder, in parts, and says of each row why it is in or out:
`queries`: what each query asks for; `pictures`: how good each picture is; `ratings`: how well each query describes
each of its pictures; and `triplets.csv`.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import Ge, Gt, Lt
from jaxtyping import Bool, Float

from univert.core.allocator import return_freed_memory
from univert.core.errors import BadInputError
from univert.core.files import fingerprint, write_atomic
from univert.core.protocols import CatalogueEmbedder
from univert.core.run import Run
from univert.core.terminal import progress_bar
from univert.curation.image_triplets import KeptResults, make_triplets
from univert.curation.match_practice import NamedPictures, learn_match
from univert.curation.parts import Parts
from univert.curation.picture_match import PictureMatch
from univert.curation.picture_rating import EMBEDDED, PICTURES, RatedPictures, embed_pictures, rate_pictures
from univert.curation.query_log import LoggedQuery, read_query_log
from univert.curation.query_parser import PARSED, QueryParser
from univert.curation.result_rating import RATINGS, ResultRating
from univert.data.catalogue import Catalogue
from univert.data.names import read_names, texts_of_products
from univert.data.rows import SourceProblem
from univert.data.tables import count_table_rows, csv_text
from univert.data.triplets import ROLES
from univert.models.text_tower import TextTower

QUERIES_AT_ONCE: Final = 2_000
"""Rows of the log in a part."""

_LEAST_NAMED: Final = 10
"""Named products of a split."""

RESULT: Final = pa.struct([("id", pa.string()), ("rank", pa.int32()), ("title", pa.string())])
QUERIES: Final = pa.schema(
    [("number", pa.int64()), ("count", pa.int64()), *PARSED, ("problem", pa.string()), ("results", pa.list_(RESULT))]
)
"""A row for each of the log: its number, what the parser says, and, if it has a vertical, its first pictures.
`problem` says why a row could not be read; then it has no query."""


@dataclass(frozen=True, kw_only=True)
class CurateConfig:
    """The choices of `curate`.

    Attributes:
        precision: how often the vertical that a query is given should be right.
        results: how many pictures of a query are looked at, the first ones.
        match: how probable it must be that a query describes a picture.
        per_vertical: most triplets of a vertical.
        seed: of the choice of triplets.
    """

    precision: Annotated[float, Gt(0), Lt(1)] = 0.95
    results: Annotated[int, Ge(2)] = 30
    match: Annotated[float, Gt(0), Lt(1)] = 0.6
    per_vertical: Annotated[int, Ge(1)] = 20_000
    seed: Annotated[int, Ge(0)] = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Curation:
    """A finished curation, to be looked at.

    Attributes:
        path: the folder.
        images: the pictures.
        queries: the table of `QUERIES`.
        ratings: the table of `univert.curation.result_rating.RATINGS`.
        triplets: how many, by vertical.
    """

    path: Path
    images: Catalogue
    queries: Parts
    ratings: Parts
    triplets: Mapping[str, int]


def curate(
    log: Path | str,
    images: Catalogue,
    out: Path | str,
    *,
    model: CatalogueEmbedder,
    names: Path | str,
    catalogue: Catalogue | None = None,
    taxonomy: Path | str | None = None,
    config: CurateConfig | None = None,
) -> Curation:
    """Make image triplets from a query log.

    Killed, it goes on where it was when it is called again; what a changed input or choice does not touch stays, such
    as the pictures when the log grows. Memory grows with the kept results, and with the pictures by their ids, hashes
    and what is wrong with them; vectors lie on the disk.

    Args:
        log: see `univert.curation.query_log.read_query_log`. Where it has no pictures at all, `images` is searched.
        images: the pictures that the log names. A vertical of theirs that named products have is believed; any other,
            such as `unknown`, counts as not known.
        out: the folder to work in.
        model: the unified model, or any other for these verticals.
        names: what products are called; see `univert.data.names.read_names`.
        catalogue: the labelled pictures of the named products; None: `images`.
        taxonomy: more words for verticals; see `QueryParser.from_names`.
        config: the choices.

    Raises:
        BadInputError: a file cannot be read, the log names no picture of `images`, or another process works in `out`.
    """
    run, config = Run(Path(out)), config or CurateConfig()
    with run.locked():
        sources = _Sources(
            log=Path(log), images=images, names=Path(names), catalogue=catalogue or images,
            taxonomy=None if taxonomy is None else Path(taxonomy), model=model, config=config,
        )  # fmt: skip
        queries = _parse_log(sources, run)
        pictures, vectors = _look_at_pictures(sources, run.path, queries)
        ratings = _rate_results(sources, run, queries, pictures, vectors)
        triplets = _write_triplets(sources, run, queries, ratings, pictures, vectors)
    return Curation(path=run.path, images=images, queries=queries, ratings=ratings, triplets=triplets)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sources:
    """What a curation is made from."""

    log: Path
    images: Catalogue
    names: Path
    catalogue: Catalogue
    taxonomy: Path | None
    model: CatalogueEmbedder
    config: CurateConfig

    @cached_property
    def of_words(self) -> str:
        """A fingerprint of what products are called, and which they are."""
        return fingerprint(_digest(self.names), self.catalogue.fingerprint)

    @cached_property
    def of_queries(self) -> str:
        """A fingerprint of all that decides what the queries ask for."""
        files = [None if path is None else _digest(path) for path in (self.log, self.taxonomy)]
        return fingerprint(files, self.of_words, self.config.precision, self.config.results)

    @cached_property
    def of_ratings(self) -> str:
        """A fingerprint of all that decides which pictures are kept."""
        return fingerprint(self.of_queries, self.images.fingerprint, self.model.fingerprint, self.config.match)

    @cached_property
    def named_verticals(self) -> list[str]:
        """Those of the labelled pictures."""
        return self.catalogue.select(labelled=True).verticals


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}; give a file that can be read") from None


def _parse_log(sources: _Sources, run: Run) -> Parts:
    """What each query of the log asks for."""
    parts = Parts(run.path / "queries", QUERIES, sources.of_queries)
    done = run.finished("queries", sources.of_queries)
    if done is not None and done["parts"] == parts.count:
        return parts
    parser = QueryParser.from_names(read_names(sources.names), sources.catalogue, sources.taxonomy)
    with progress_bar("reading queries", count_table_rows(sources.log), unit="queries") as advance:
        rows = read_query_log(sources.log)
        for number, batch in enumerate(iter(lambda: list(itertools.islice(rows, QUERIES_AT_ONCE)), [])):
            if number >= parts.count:
                parts.append(_parsed(batch, number * QUERIES_AT_ONCE, parser, sources.config))
            advance(len(batch))
    if not parts.count:
        raise BadInputError(f"{sources.log}: the log has no queries")
    run.finish("queries", sources.of_queries, {"parts": parts.count})
    return_freed_memory()
    return parts


def _parsed(
    rows: Sequence[LoggedQuery | SourceProblem], first: int, parser: QueryParser, config: CurateConfig
) -> pa.Table:
    good = [row for row in rows if isinstance(row, LoggedQuery)]
    parsed = iter(parser.parse([row.query for row in good], config.precision).to_pylist())
    told = []
    for number, row in enumerate(rows, start=first):
        if isinstance(row, SourceProblem):
            told.append({"number": number, "count": 0, "problem": f"{row.origin}: {row.kind}: {row.detail}; {row.fix}"})
            continue
        found = next(parsed)
        results = None
        if found["vertical"] is not None and row.results is not None:
            results = [result._asdict() for result in row.results[: config.results]]
        told.append({"number": number, "count": row.asked, **found, "results": results})
    return pa.Table.from_pylist(told, schema=QUERIES)


def _look_at_pictures(sources: _Sources, out: Path, queries: Parts) -> tuple[RatedPictures, Float[np.ndarray, "N D"]]:
    """The pictures of queries with a vertical, or all where such a query has none; and vectors of the good ones."""
    needed = np.flatnonzero(_needed(sources, queries))
    inputs = fingerprint(sources.images.fingerprint, sources.catalogue.fingerprint)
    parts = Parts(out / "pictures", PICTURES, inputs)
    pictures = rate_pictures(sources.images, needed, parts, sources.catalogue.select(labelled=True))
    return_freed_memory()
    good = needed[pictures.good[needed]]
    embedded = Parts(out / "vectors", EMBEDDED, fingerprint(sources.images.fingerprint, sources.model.fingerprint))
    return pictures, embed_pictures("embedding pictures", sources.model, sources.images, good, embedded)


def _needed(sources: _Sources, queries: Parts) -> Bool[np.ndarray, " N"]:
    """Which pictures are to be looked at."""
    ids = pa.array(sources.images.column("id"), pa.string())
    needed, parsed = np.zeros(len(ids), bool), 0
    for part in range(queries.count):
        table = queries.read(part, ["vertical", "results"])
        results = table.filter(table["vertical"].is_valid())["results"].combine_chunks()
        if results.null_count:
            return np.ones(len(ids), bool)  # to be searched
        needed |= pc.is_in(ids, results.flatten().field("id")).to_numpy(zero_copy_only=False)
        parsed += len(results)
    if not parsed:
        raise BadInputError(
            f"{sources.log}: no query is given a vertical; lower precision (now {sources.config.precision:g}), or see "
            f"in the table queries how each was read"
        )
    if not needed.any():
        raise BadInputError(
            f"no picture of {sources.log} is in {sources.images.path}; ids must be those of the catalogue, which "
            f"begins with {ids[0].as_py()!r}"
        )
    return needed


def _rate_results(
    sources: _Sources, run: Run, queries: Parts, pictures: RatedPictures, vectors: Float[np.ndarray, "N D"]
) -> Parts:
    """How well each query describes its pictures."""
    ratings = Parts(run.path / "ratings", RATINGS, sources.of_ratings)
    if ratings.count < queries.count:
        tower, match = _learn_words(sources, run)
        rating = ResultRating(
            pictures, vectors, tower, match, least=sources.config.match, verticals=sources.named_verticals,
            search=sources.config.results,
        )  # fmt: skip
        rating.rate_all(queries, ratings)
    return ratings


def _learn_words(sources: _Sources, run: Run) -> tuple[TextTower, PictureMatch]:
    """The text tower, learned from the train split's named products, and the match, from the val split's."""
    folder = run.path / "words"
    inputs = fingerprint(sources.of_words, sources.model.fingerprint)
    if run.finished("words", inputs) is not None and (folder / "match.json").exists():
        return TextTower.from_pretrained(folder), PictureMatch.load(folder / "match.json")
    texts = texts_of_products(read_names(sources.names))
    learned_from = sources.catalogue.select(labelled=True, split=["train", "val"])
    products = learned_from.column("product").astype(str)
    splits = dict(zip(products, learned_from.column("split"), strict=True))
    seen, unseen = ({name for name in texts if splits.get(name) == split} for split in ("train", "val"))
    if min(len(seen), len(unseen)) < _LEAST_NAMED:
        raise BadInputError(
            f"{sources.names} names {len(seen)} products of the train split of {sources.catalogue.path} and "
            f"{len(unseen)} of its val split; it takes {_LEAST_NAMED} of each to learn how well words describe pictures"
        )
    embedded = Parts(run.path / "named", EMBEDDED, inputs)
    everything = np.arange(len(learned_from))
    named = NamedPictures(
        vectors=embed_pictures("embedding named pictures", sources.model, learned_from, everything, embedded),
        products=products,
        verticals=learned_from.column("vertical").astype(str),
        texts=texts,
    )
    tower = named.of(seen).tower(model_fingerprint=sources.model.fingerprint)
    match = learn_match(tower, named.of(unseen))
    run.forget("words")
    tower.save_pretrained(folder, overwrite=True)
    match.save(folder / "match.json")
    run.finish("words", inputs, {})
    return_freed_memory()
    return tower, match


def _write_triplets(
    sources: _Sources,
    run: Run,
    queries: Parts,
    ratings: Parts,
    pictures: RatedPictures,
    vectors: Float[np.ndarray, "N D"],
) -> dict[str, int]:
    """`triplets.csv`; how many there are of each vertical."""
    path = run.path / "triplets.csv"
    inputs = fingerprint(sources.of_ratings, sources.config.per_vertical, sources.config.seed)
    done = run.finished("triplets", inputs)
    if done is not None and path.exists():
        return dict(done["verticals"])
    kept = _kept_results(queries, ratings, pictures, vectors)
    triplets = list(make_triplets(kept, per_vertical=sources.config.per_vertical, seed=sources.config.seed))
    if not triplets:
        raise BadInputError(
            f"no triplet can be made of {len(kept.picture):,} pictures kept for {len(set(kept.query)):,} queries; "
            f"lower match (now {sources.config.match:g}), or see in {run.path / 'ratings'} why the others are out"
        )
    ids = sources.images.column("id")
    rows = ([*ids[[one.anchor, one.positive, one.negative]], one.query, one.vertical] for one in triplets)
    write_atomic(path, csv_text([*ROLES, "query", "vertical"], rows))
    found = dict(sorted(Counter(one.vertical for one in triplets).items()))
    run.finish("triplets", inputs, {"verticals": found})
    return found


def _kept_results(
    queries: Parts, ratings: Parts, pictures: RatedPictures, vectors: Float[np.ndarray, "N D"]
) -> KeptResults:
    """Kept pictures of the train split, each once for a query; where verticals disagree, as most queries say."""
    learned = pa.array(pictures.images.column("split") == "train")

    def parts() -> Iterator[pa.Table]:
        for part in range(ratings.count):
            table = ratings.read(part, ["number", "position", "probability", "kept"])
            table = table.filter(table["kept"])
            table = table.filter(learned.take(table["position"].combine_chunks()))
            asked = queries.read(part, ["number", "query", "vertical"])
            asked = asked.set_column(1, "query", pc.utf8_lower(asked["query"]))
            yield table.join(asked, "number").select(["vertical", "query", "position", "probability"])

    rows = pa.concat_tables(parts()).group_by(["vertical", "query", "position"])
    kept = rows.aggregate([("probability", "max")])
    votes = kept.group_by(["position", "vertical"]).aggregate([("probability_max", "sum")])
    order = [("position", "ascending"), ("probability_max_sum", "descending"), ("vertical", "ascending")]
    home = votes.sort_by(order).group_by("position", use_threads=False).aggregate([("vertical", "first")])
    home = home.rename_columns({"vertical_first": "vertical"})
    kept = kept.join(home, ["position", "vertical"], join_type="inner")
    kept = kept.sort_by([(name, "ascending") for name in ("vertical", "query", "position")])
    vertical, query, picture = (kept[name].to_numpy(zero_copy_only=False) for name in ("vertical", "query", "position"))
    return KeptResults(vertical=vertical, query=query, picture=picture, vectors=vectors, near=pictures.near)
