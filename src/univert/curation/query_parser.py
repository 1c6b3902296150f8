"""What people search for: the vertical of a query, learned from what a catalogue's products are called."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from univert.core.errors import BadInputError
from univert.core.files import fingerprint
from univert.core.terminal import Advance, progress_bar
from univert.curation.query_examples import NONE, WEIGHTS, Example, name_examples, off_topic_examples, taxonomy_examples
from univert.data.catalogue import Catalogue
from univert.data.lexicon import Lexicon, Reading, normalise, words_of
from univert.data.names import ProductName
from univert.models.text_embedding import embed_texts

FOLDS: Final = 5
NEGATIVES_SHARE: Final = 1 / 3
"""The share of off-topic queries that confidence is calibrated for."""
ENGLISH_SHARE: Final = 2 / 3
"""A query is English where so many of its words are."""
_BATCH: Final = 4_096
_LEAST: Final = 1e-4

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

    Two linear models answer. One weighs words and their parts, in all languages of the names. The other weighs the
    meaning of the whole as MiniLM reads it, and counts as far as the query is English; it has one more answer,
    "none", learned from frequent words and from queries about other things. Confidence is the chance that the
    vertical is right: a logistic model over what the two say of products that neither has seen. English queries, whose
    meaning counts, have a logistic model of their own.

    Args:
        examples: English ones of every vertical, and of `NONE`: see `off_topic_examples`.
        brands: to be recognised.

    Raises:
        BadInputError: English examples of a vertical, or of `NONE`, are missing or too few to leave some out.
    """

    def __init__(self, examples: Sequence[Example], brands: Iterable[str] = ()) -> None:
        brands = tuple(brands)
        texts = _Texts(examples)
        with progress_bar("learning to read queries", FOLDS + 1, unit="models") as advance:
            self._calibrate(examples, brands, texts, advance)
            self._models = _Models(examples, brands, texts)
            advance(1)
        self.verticals = self._models.verticals
        meant: dict[str, set[str]] = defaultdict(set)
        for example in examples:
            if example.kind == "tag" and example.product is None:
                meant[" ".join(words_of(normalise(example.text)))].add(example.vertical)
        self._synonyms = {text: min(found) for text, found in meant.items() if len(found) == 1}

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
            taxonomy: further words for verticals, as a TOML file `vertical = ["word", ...]` or as a mapping. A query
                of such words alone is given that vertical, and others that have them are more likely to be.
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
        products = {(example.vertical, example.product) for example in examples}
        found = [vertical for vertical, count in Counter(vertical for vertical, _ in products).items() if count > 1]
        if len(found) < 2:
            raise BadInputError(
                f"the names belong to {len(found)} verticals with at least two products, but it takes two such "
                "verticals; check that the column 'product' is written as in the catalogue"
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
        rows: dict[str, dict[str, Any]] = {}
        distinct = list(dict.fromkeys(queries))
        for start in range(0, len(distinct), _BATCH):
            batch = distinct[start : start + _BATCH]
            rows.update(zip(batch, self._rows(batch, precision), strict=True))
        return pa.Table.from_pylist([rows[query] for query in queries], schema=PARSED)

    def _rows(self, queries: Sequence[str], precision: float) -> Iterator[dict[str, Any]]:
        readings = [self._models.lexicon.read(query) for query in queries]
        verticals, clues = self._models.judge(readings)
        english = _are_english(readings)
        confidence, least = np.zeros(len(readings)), np.ones(len(readings))
        for part, curve in self._curves.items():
            if (english == part).any():
                confidence[english == part] = curve.confidence(clues[english == part])
                least[english == part] = curve.least_confidence(precision)
        found = zip(queries, readings, verticals, confidence.tolist(), (confidence >= least).tolist(), strict=True)
        for query, reading, vertical, sureness, sure in found:
            given = bool(reading.words) and sure
            why = self._models.why(reading, vertical, given)
            if (text := " ".join(reading.words)) in self._synonyms:
                vertical, sureness, given, why = self._synonyms[text], 1.0, True, f"the taxonomy has {text!r}"
            yield {
                "query": query,
                "vertical": vertical if given else None,
                "confidence": sureness if reading.words else 0.0,
                "words": list(reading.words),
                "brand": reading.brand,
                "colour": reading.colour,
                "language": reading.language,
                "why": why,
            }

    def _calibrate(self, examples: Sequence[Example], brands: Sequence[str], texts: _Texts, advance: Advance) -> None:
        """Ask for products that were left out, and for off-topic queries: how sure is how often right?"""
        folds = np.array(folds_of(examples))
        clues, right, left_out, english = [], [], [], []
        for fold in range(FOLDS):
            models = _Models([examples[i] for i in np.flatnonzero(folds != fold).tolist()], brands, texts)
            of_fold = [examples[i] for i in np.flatnonzero(folds == fold).tolist() if examples[i].kind != "tag"]
            readings = [models.lexicon.read(example.text) for example in of_fold]
            best, found = models.judge(readings)
            clues.append(found)
            right += [guess == example.vertical for guess, example in zip(best, of_fold, strict=True)]
            english.append(_are_english(readings))
            left_out += of_fold
            advance(1)
        weights = np.array([WEIGHTS[example.kind] for example in left_out])
        off_topic = np.array([example.vertical == NONE for example in left_out])
        in_english = np.array([example.language in ("en", None) for example in left_out])
        is_english = np.concatenate(english)
        parts = {True: is_english & (in_english | off_topic), False: ~is_english}
        curves = {
            english: _Curve(np.concatenate(clues)[part], np.array(right)[part], weights[part], off_topic[part])
            for english, part in parts.items()
            if len({*np.array(right)[part].tolist()}) == 2
        }
        self._curves = {part: curves.get(part) or curves[not part] for part in (True, False) if curves}


def _are_english(readings: Sequence[Reading]) -> np.ndarray:
    return np.array([reading.english >= ENGLISH_SHARE for reading in readings], bool)


def folds_of(examples: Sequence[Example]) -> list[int]:
    """The fold in which each example is left out, every vertical dealt out evenly; -1 for what stays in all.

    Products are left out at random, so that a name comes again among the others as often as new products share the
    names of known ones.
    """
    left_out = {(e.vertical, e.product or e.text) for e in examples if e.product or e.vertical == NONE}
    dealt: dict[str, int] = defaultdict(int)
    fold = {}
    for vertical, what in sorted(left_out, key=lambda pair: fingerprint(*pair)):
        fold[vertical, what] = dealt[vertical] % FOLDS
        dealt[vertical] += 1
    return [fold.get((example.vertical, example.product or example.text), -1) for example in examples]


class _Curve:
    """How sure it is that a vertical is right, and how often it then was."""

    def __init__(
        self, clues: Float[np.ndarray, "N F"], right: np.ndarray, weights: np.ndarray, off_topic: np.ndarray
    ) -> None:
        from sklearn.linear_model import LogisticRegression

        for part, share in ((off_topic, NEGATIVES_SHARE), (~off_topic, 1 - NEGATIVES_SHARE)):
            weights[part] *= share * len(weights) / max(weights[part].sum(), 1)
        self._model = LogisticRegression(C=10).fit(clues, right, sample_weight=weights)
        confidence = self.confidence(clues)
        order = np.argsort(-confidence, kind="stable")
        self._confidences = confidence[order]
        self._precisions = np.cumsum((weights * right)[order]) / np.cumsum(weights[order])

    def confidence(self, clues: Float[np.ndarray, "N F"]) -> Float[np.ndarray, "N"]:
        return np.asarray(self._model.predict_proba(clues)[:, 1])

    def least_confidence(self, precision: float) -> float:
        """From here on precision is kept; never where a vertical is rather wrong than right."""
        good = np.flatnonzero((self._precisions >= precision) & (self._confidences >= 0.5))
        return float(self._confidences[good[-1]]) if len(good) else 1.0


class _Texts:
    """Words and parts of words of normalised texts, counted; the examples' once for all folds."""

    def __init__(self, examples: Sequence[Example]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_union

        named = dict.fromkeys(normalise(example.text) for example in examples if _is_named(example))
        settings = {"dtype": np.float32, "sublinear_tf": True, "lowercase": False}
        least = 2 if len(named) > 1000 else 1  # most parts of words that come once tell nothing
        self._parts = make_union(
            TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), min_df=least, **settings),
            TfidfVectorizer(analyzer=_word_pairs, **settings),
        )
        self._rows = {text: row for row, text in enumerate(named)}
        self._named = self._parts.fit_transform(list(named)).tocsr()

    def features_of_named(self, texts: Sequence[str]) -> Any:
        return self._named[[self._rows[text] for text in texts]]

    def features(self, texts: Sequence[str]) -> Any:
        return self._parts.transform(texts)


class _Models:
    """A lexicon, and the two linear models: over words and their parts, and over the meaning of the whole."""

    def __init__(self, examples: Sequence[Example], brands: Iterable[str], texts: _Texts) -> None:
        from sklearn.linear_model import LogisticRegression

        self._texts = texts
        distinct = list(dict.fromkeys(example._replace(product=None) for example in examples))
        named = list(filter(_is_named, distinct))
        self.lexicon = Lexicon([(example.text, example.language) for example in named], brands)
        self.verticals = sorted({example.vertical for example in named})
        self._votes: dict[str, Counter[str]] = defaultdict(Counter)
        for example in named:
            for word in set(words_of(normalise(example.text))):
                self._votes[word][example.vertical] += 1
        features = texts.features_of_named([normalise(example.text) for example in named])
        weights = [WEIGHTS[example.kind] for example in named]
        self._by_words = [
            LogisticRegression(C=10, solver="liblinear", tol=1e-3).fit(
                features, [example.vertical == vertical for example in named], sample_weight=weights
            )
            for vertical in self.verticals
        ]
        english = [example for example in distinct if example.language in ("en", None)]
        self._by_meaning = LogisticRegression(C=10, max_iter=1000, tol=1e-3).fit(
            embed_texts([normalise(example.text) for example in english]),
            [example.vertical for example in english],
            sample_weight=[WEIGHTS[example.kind] for example in english],
        )
        if self._by_meaning.classes_.tolist() != [NONE, *self.verticals]:
            raise BadInputError(
                f"examples: only {self._by_meaning.classes_.tolist()} have English ones, but it takes some of "
                f"{[NONE, *self.verticals]}; add texts, and `off_topic_examples` for ''"
            )

    def judge(self, readings: Sequence[Reading]) -> tuple[list[str], Float[np.ndarray, "N 3"]]:
        """The best vertical of each query; log odds that it is right, and that none is; the share of known words."""
        words = [" ".join(reading.words) for reading in readings]
        features = self._texts.features(words)
        by_words = np.column_stack([model.predict_proba(features)[:, 1] for model in self._by_words])
        by_words = np.log(by_words / by_words.sum(axis=1, keepdims=True) + _LEAST)
        by_meaning, none = np.full(by_words.shape, -np.log(len(self.verticals))), np.zeros(len(words))
        english = np.array([reading.english for reading in readings])
        if len(some := np.flatnonzero(english > 0)):
            chances = self._by_meaning.predict_proba(embed_texts([words[i] for i in some.tolist()]))
            outside = chances[:, 0]  # NONE sorts before every vertical
            inside = np.log(chances[:, 1:] + _LEAST) - np.log(1 - outside + _LEAST)[:, None]
            by_meaning[some] += english[some, None] * (inside - by_meaning[some])
            none[some] = english[some] * _log_odds(outside)
        chances = np.exp(by_words + by_meaning)
        chances /= chances.sum(axis=1, keepdims=True)
        best = chances.argmax(axis=1)
        known = np.array([reading.known for reading in readings])
        clues = np.column_stack([_log_odds(chances.max(axis=1)), none, known])
        return [self.verticals[i] for i in best.tolist()], clues

    def why(self, reading: Reading, vertical: str, given: bool) -> str:
        """What decided, in a few words."""
        if not reading.words:
            return "no words"
        reasons = [f"{typo!r} read as {word!r}" for typo, word in reading.fixed]
        for word in reading.words:
            votes = self._votes.get(word)
            if votes and votes[vertical]:
                reasons.append(f"{word!r} in {votes[vertical]} of {votes.total()} names of {vertical}")
        if not any(word in self._votes for word in reading.words):
            reasons.append("none of its words is in a name")
        if not given:
            return "; ".join([*reasons, f"too uncertain for {vertical}"])
        return "; ".join(reasons) or f"means what names of {vertical} mean"


def _is_named(example: Example) -> bool:
    return example.kind in ("name", "tag")


def _log_odds(chances: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    return np.asarray(np.log((chances + _LEAST) / (1 - chances + _LEAST)))


def _word_pairs(text: str) -> list[str]:
    words = text.split()
    return words + [f"{first} {second}" for first, second in pairwise(words)]
