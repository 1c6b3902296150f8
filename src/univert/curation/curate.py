"""From a query log to image triplets, the whole of it: FIG. 6 of the unified-embedding paper before people rate.

Each stage writes a table in the output folder, in parts, and says of each row why it is in or out:
`queries`: what each query asks for; `pictures`: how good each picture is; `ratings`: how well each query describes
each of its pictures; and `triplets.csv`.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from annotated_types import Ge, Gt, Lt
from jaxtyping import Float

from univert.core.errors import BadInputError
from univert.core.files import fingerprint, write_atomic
from univert.core.protocols import CatalogueEmbedder
from univert.core.run import Run
from univert.core.terminal import progress_bar
from univert.curation.image_triplets import KeptResults, count_by_vertical, make_triplets, triplets_csv
from univert.curation.match_practice import NamedPictures, learn_match
from univert.curation.parts import Parts
from univert.curation.picture_match import PictureMatch
from univert.curation.picture_rating import PICTURES, RatedPictures, embed_pictures, rate_pictures
from univert.curation.query_log import LoggedQuery, read_query_log
from univert.curation.query_parser import PARSED, QueryParser
from univert.curation.result_rating import RATINGS, ResultRating
from univert.data.catalogue import Catalogue
from univert.data.names import read_names, texts_of_products
from univert.data.rows import SourceProblem
from univert.data.tables import count_table_rows
from univert.models.text_tower import TextTower

QUERIES_AT_ONCE: Final = 5_000
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
        seed: of everything random.
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

    Killed, it goes on where it was when it is called again; what a changed input or choice does not touch stays. Memory
    does not grow with what is in the log but for the distinct queries, nor with the pictures but for their ids, hashes,
    and what is wrong with them.

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
        queries = _parse_log(sources, run.path)
        pictures, vectors = _look_at_pictures(sources, run.path, queries)
        ratings = _rate_results(sources, run.path, queries, pictures, vectors)
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
    def of_queries(self) -> str:
        """A fingerprint of all that decides what the queries ask for."""
        files = [None if path is None else _digest(path) for path in (self.log, self.names, self.taxonomy)]
        return fingerprint(files, self.catalogue.fingerprint, self.config.precision, self.config.results)

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


def _parse_log(sources: _Sources, out: Path) -> Parts:
    """What each query of the log asks for."""
    parts = Parts(out / "queries", QUERIES, sources.of_queries)
    finished = out / "queries" / "finished"
    if finished.exists():
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
    write_atomic(finished, "")
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


def _look_at_pictures(sources: _Sources, out: Path, queries: Parts) -> tuple[RatedPictures, Float[np.ndarray, "G D"]]:
    """The pictures of queries with a vertical, or all where the log has none; and vectors of the good ones."""
    ids = pa.array(sources.images.column("id"), pa.string())
    needed = np.zeros(len(ids), bool)
    for part in range(queries.count):
        results = queries.read(part, ["results"])["results"].combine_chunks()
        needed |= pc.is_in(ids, results.flatten().field("id")).to_numpy(zero_copy_only=False)
    if not needed.any():
        if any(pc.any(queries.read(part, ["results"])["results"].is_valid()).as_py() for part in range(queries.count)):
            raise BadInputError(
                f"no picture of {sources.log} is in {sources.images.path}; ids must be those of the catalogue, which "
                f"begins with {ids[0].as_py()!r}"
            )
        needed[:] = True
    inputs = fingerprint(sources.of_queries, sources.images.fingerprint)
    parts = Parts(out / "pictures", PICTURES, inputs)
    pictures = rate_pictures(sources.images, np.flatnonzero(needed), parts, sources.catalogue.select(labelled=True))
    vectors = embed_pictures(
        sources.model, sources.images, np.flatnonzero(pictures.good), out / "vectors.npy",
        fingerprint(inputs, sources.model.fingerprint),
    )  # fmt: skip
    return pictures, vectors


def _rate_results(
    sources: _Sources, out: Path, queries: Parts, pictures: RatedPictures, vectors: Float[np.ndarray, "G D"]
) -> Parts:
    """How well each query describes its pictures."""
    ratings = Parts(out / "ratings", RATINGS, sources.of_ratings)
    if ratings.count < queries.count:
        tower, match = _learn_words(sources, out)
        rating = ResultRating(
            pictures, vectors, tower, match, least=sources.config.match, verticals=sources.named_verticals,
            search=sources.config.results,
        )  # fmt: skip
        rating.rate_all(queries, ratings)
    return ratings


def _learn_words(sources: _Sources, out: Path) -> tuple[TextTower, PictureMatch]:
    """The text tower, learned from the train split's named products, and the match, from the val split's."""
    folder, noted = out / "words", out / "words" / "inputs"
    inputs = fingerprint(sources.catalogue.fingerprint, sources.of_queries, sources.model.fingerprint)
    if noted.exists() and noted.read_text(encoding="utf-8") == inputs:
        return TextTower.from_pretrained(folder), PictureMatch.load(folder / "match.json")
    texts = texts_of_products(read_names(sources.names))
    learned_from = sources.catalogue.select(labelled=True, split=["train", "val"])
    named = NamedPictures(
        vectors=sources.model.embed_catalogue(learned_from),
        products=learned_from.column("product").astype(str),
        verticals=learned_from.column("vertical").astype(str),
        texts=texts,
    )
    splits = dict(zip(named.products, learned_from.column("split"), strict=True))
    seen, unseen = ({name for name in texts if splits.get(name) == split} for split in ("train", "val"))
    if min(len(seen), len(unseen)) < _LEAST_NAMED:
        raise BadInputError(
            f"{sources.names} names {len(seen)} products of the train split of {sources.catalogue.path} and "
            f"{len(unseen)} of its val split; it takes {_LEAST_NAMED} of each to learn how well words describe pictures"
        )
    tower = named.of(seen).tower(model_fingerprint=sources.model.fingerprint)
    match = learn_match(tower, named.of(unseen), seed=sources.config.seed)
    noted.unlink(missing_ok=True)
    tower.save_pretrained(folder, overwrite=True)
    match.save(folder / "match.json")
    write_atomic(noted, inputs)
    return tower, match


def _write_triplets(
    sources: _Sources,
    run: Run,
    queries: Parts,
    ratings: Parts,
    pictures: RatedPictures,
    vectors: Float[np.ndarray, "G D"],
) -> dict[str, int]:
    """`triplets.csv`; how many there are of each vertical."""
    inputs = fingerprint(sources.of_ratings, sources.config.per_vertical, sources.config.seed)
    done = run.finished("triplets", inputs)
    if done is not None:
        return dict(done["verticals"])
    kept = _kept_results(queries, ratings, pictures, vectors)
    triplets = list(make_triplets(kept, per_vertical=sources.config.per_vertical, seed=sources.config.seed))
    if not triplets:
        raise BadInputError(
            f"no triplet can be made: {len(kept.queries):,} queries with a vertical kept {len(kept.query):,} pictures; "
            f"lower match (now {sources.config.match:g}), or see in {run.path / 'ratings'} why the others are out"
        )
    ids = sources.images.column("id")[kept.positions]
    write_atomic(run.path / "triplets.csv", triplets_csv(triplets, ids))
    found = count_by_vertical(triplets)
    run.finish("triplets", inputs, {"verticals": found})
    return found


def _kept_results(
    queries: Parts, ratings: Parts, pictures: RatedPictures, vectors: Float[np.ndarray, "G D"]
) -> KeptResults:
    """Kept pictures of the train split, each once for a query; where verticals disagree, as most queries say."""
    place: dict[tuple[str, str], int] = {}
    row_of = np.full(len(pictures.images), -1)
    row_of[pictures.good] = np.arange(len(vectors))
    learned = pictures.images.column("split") == "train"
    pairs: dict[tuple[int, int], float] = {}
    for part in range(ratings.count):
        table = ratings.read(part, ["number", "position", "probability", "kept"])
        table = table.filter(table["kept"])
        asked = queries.read(part, ["number", "query", "vertical"])
        asked = asked.filter(pc.is_in(asked["number"], table["number"])).to_pylist()
        query_of = {
            one["number"]: place.setdefault((one["vertical"], one["query"].casefold()), len(place)) for one in asked
        }
        columns = (table[name].to_pylist() for name in ("number", "position", "probability"))
        for number, position, probability in zip(*columns, strict=True):
            if learned[position]:
                key = query_of[number], int(row_of[position])
                pairs[key] = max(probability, pairs.get(key, 0.0))
    names = list(place)
    votes: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for (query, picture), probability in pairs.items():
        votes[picture][names[query][0]] += probability
    home = {picture: max(sorted(said), key=said.__getitem__) for picture, said in votes.items()}
    kept = np.array([pair for pair in pairs if home[pair[1]] == names[pair[0]][0]], np.int64).reshape(-1, 2)
    return KeptResults(
        queries=[query for _, query in names],
        verticals=[vertical for vertical, _ in names],
        query=kept[:, 0],
        picture=kept[:, 1],
        vectors=vectors,
        near=pictures.near,
        positions=np.flatnonzero(pictures.good),
    )
