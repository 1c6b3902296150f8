"""What people search for: the vertical of a query, learned from what a catalogue's products are called."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from univert.core.errors import BadInputError
from univert.core.files import fingerprint
from univert.core.terminal import progress_bar
from univert.curation.query_confidence import QueryConfidence
from univert.curation.query_examples import NONE, Example, name_examples, off_topic_examples, taxonomy_examples
from univert.curation.query_reader import Meanings, QueryReader
from univert.data.catalogue import Catalogue
from univert.data.names import ProductName

FOLDS: Final = 4
NEGATIVES_SHARE: Final = 1 / 3
"""The share of off-topic queries that confidence is calibrated for."""
ASKED: Final = {"name": 1.0, "everyday": 0.5, "frequent": 1.0, "written": 2.0}
"""How much an example counts in calibration: an off-topic query that a person wrote more than frequent words."""
_BATCH: Final = 4_096

PARSED: Final = pa.schema(
    [
        ("query", pa.string()),
        ("vertical", pa.string()),
        ("confidence", pa.float32()),
        ("words", pa.list_(pa.string())),
        ("brand", pa.string()),
        ("colour", pa.string()),
        ("language", pa.string()),
        ("why", pa.string()),
    ]
)
"""The columns of a parsed query; all but the first two and the words may be None."""


class QueryParser:
    """Gives each query a vertical with a confidence, or none; and takes its words apart.

    Two linear models are heard. One weighs words and their parts, in all languages of the names. The other weighs the
    meaning of the whole as MiniLM reads it, and counts as far as the query is English; it has one more answer,
    "none", learned from frequent words and from queries about other things. Confidence is the chance that the
    vertical is right: a logistic model over what the two say of products that neither has seen.
    """

    def __init__(self, examples: Sequence[Example], brands: Iterable[str] = ()) -> None:
        self._brands = tuple(brands)
        self.verticals = sorted({example.vertical for example in examples} - {NONE})
        meanings = Meanings()
        self._calibration = QueryConfidence(*self._cross_fit(examples, meanings))
        self._reader = QueryReader(examples, self._brands, meanings)

    @classmethod
    def from_names(
        cls,
        names: Iterable[ProductName],
        verticals: Catalogue | Mapping[str, str],
        taxonomy: Mapping[str, Sequence[str]] | Path | str | None = None,
        brands: Iterable[str] | None = None,
    ) -> QueryParser:
        """Learn from a names table.

        Args:
            names: what the products are called; see `univert.data.names.read_names`.
            verticals: the catalogue, or the vertical of each product.
            taxonomy: further words for verticals, as a TOML file `vertical = ["word", ...]` or as a mapping.
            brands: to be recognised; the catalogue's where None.

        Raises:
            BadInputError: no name belongs to a product of the catalogue; only one vertical has names; the taxonomy
                names an unknown vertical or cannot be read; or the extra `curate` is not installed.
        """
        if isinstance(verticals, Catalogue):
            columns = (verticals.column(name).tolist() for name in ("product", "vertical"))
            brands = [b for b in verticals.column("brand").tolist() if b] if brands is None else brands
            verticals = {product: vertical for product, vertical in zip(*columns, strict=True) if product is not None}
        examples = name_examples(names, verticals)
        groups = {(example.vertical, example.group) for example in examples}
        found = [vertical for vertical, count in Counter(vertical for vertical, _ in groups).items() if count > 1]
        if len(found) < 2:
            raise BadInputError(
                f"the names belong to {len(found)} verticals with at least two differently named products, but it "
                "takes two such verticals; check that the column 'product' is written as in the catalogue"
            )
        examples += taxonomy_examples(taxonomy, sorted({*verticals.values()}))
        return cls(examples + off_topic_examples(examples), dict.fromkeys(brands or ()))

    def parse(self, queries: Sequence[str], precision: float = 0.95) -> pa.Table:
        """Read queries, in their order.

        Args:
            queries: any text; one that comes again is read once.
            precision: how often a vertical that is given should be right; less gives more queries one.

        Returns:
            A row a query with the columns of `PARSED`: `vertical` is None where none is certain enough, `words` are
            those that may name a product, and `why` says what decided.

        Raises:
            BadInputError: a query is not text, or `precision` is not above 0 and below 1.
        """
        for place, query in enumerate(queries):
            if not isinstance(query, str):
                raise BadInputError(f"query {place} is {query!r}, which is not text; leave it out")
        if not 0 < precision < 1:
            raise BadInputError(f"precision must be above 0 and below 1, got {precision}")
        distinct = list(dict.fromkeys(queries))
        rows: dict[str, dict[str, Any]] = {}
        with progress_bar("Reading queries", len(distinct), unit="queries") as advance:
            for start in range(0, len(distinct), _BATCH):
                batch = distinct[start : start + _BATCH]
                rows.update(zip(batch, self._parse_batch(batch, precision), strict=True))
                advance(len(batch))
        return pa.Table.from_pylist([rows[query] for query in queries], schema=PARSED)

    def _parse_batch(self, queries: list[str], precision: float) -> list[dict[str, Any]]:
        readings = [self._reader.lexicon.read(query) for query in queries]
        best, clues = self._reader.judge(readings, Meanings())
        rows = []
        confidence = self._calibration.confidence(clues).tolist()
        thresholds = self._calibration.thresholds(clues, precision).tolist()
        for query, reading, vertical, sure, least in zip(queries, readings, best, confidence, thresholds, strict=True):
            given = vertical if reading.words and sure >= least else None
            rows.append(
                {
                    "query": query,
                    "vertical": given,
                    "confidence": sure if reading.words else 0.0,
                    "words": list(reading.words),
                    "brand": reading.brand,
                    "colour": reading.colour,
                    "language": reading.language,
                    "why": self._reader.why(reading, vertical, given is not None),
                }
            )
        return rows

    def _cross_fit(self, examples: Sequence[Example], meanings: Meanings) -> tuple[Any, ...]:
        """Clues, whether the best vertical was right, and weights, for each name and each off-topic query."""
        folds = np.array(folds_of(examples))
        asked_of: list[Example] = []
        clues, right = [], []
        for fold in range(FOLDS):
            reader = QueryReader([examples[i] for i in np.flatnonzero(folds != fold).tolist()], self._brands, meanings)
            asked = [examples[i] for i in np.flatnonzero(folds == fold).tolist() if examples[i].kind in ASKED]
            best, found = reader.judge([reader.lexicon.read(example.text) for example in asked], meanings)
            clues.append(found)
            right += [guess == example.vertical for guess, example in zip(best, asked, strict=True)]
            asked_of += asked
        weights = np.array([ASKED[example.kind] * example.products for example in asked_of])
        on_topic = np.array([example.vertical != NONE for example in asked_of])
        for part, share in ((on_topic, 1 - NEGATIVES_SHARE), (~on_topic, NEGATIVES_SHARE)):
            weights[part] *= share * len(weights) / weights[part].sum()
        return np.concatenate(clues), np.array(right, bool), weights


def folds_of(examples: Sequence[Example]) -> list[int]:
    """The fold of each example: groups whole, every vertical dealt out evenly, in an order that tells nothing."""
    groups = {(example.vertical, example.group) for example in examples}
    dealt: dict[str, int] = defaultdict(int)
    fold = {}
    for vertical, group in sorted(groups, key=lambda pair: fingerprint(*pair)):
        fold[vertical, group] = dealt[vertical] % FOLDS
        dealt[vertical] += 1
    return [fold[example.vertical, example.group] for example in examples]
