"""What people search for: the vertical of a query, learned from what a catalogue's products are called."""

from __future__ import annotations

import random
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from univert.core.errors import BadInputError, did_you_mean
from univert.core.terminal import progress_bar
from univert.curation.lexicon import Lexicon, Reading, normalise, spoken_languages, words_of
from univert.curation.text_embedding import SIZE, embed_texts
from univert.data.catalogue import Catalogue
from univert.data.names import ProductName

NONE: Final = ""
"""The label of texts that belong to no vertical."""

FOLDS: Final = 4
NEGATIVES_SHARE: Final = 1 / 3
"""The share of off-topic queries that confidence is calibrated for."""
WEIGHTS: Final = {"name": 1.0, "synonym": 1.0, "tag": 0.3, "everyday": 0.5, "frequent": 1.0, "written": 1.0}
"""How much an example of each kind counts in learning: tags say less than names."""
ASKED: Final = {"name": 1.0, "everyday": 0.5, "frequent": 1.0, "written": 5.0}
"""How much it counts in calibration: an off-topic query that a person wrote more than one of frequent words."""
_FREQUENT_WORDS: Final = 20_000
_EVERYDAY_WORDS: Final = 1_500
_LEAST_HEARD: Final = 0.3
"""How far words count of which none is in a name, for their parts."""
_LEAST: Final = 1e-4
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


class Example(NamedTuple):
    """A text whose vertical is known.

    Attributes:
        text: a name, a tag, a synonym or a query.
        language: its code; None where it is not known.
        vertical: `NONE` where it belongs to none.
        group: what must not be split between folds has one.
        kind: a key of `WEIGHTS`.
        count: how many products are called so.
    """

    text: str
    language: str | None
    vertical: str
    group: str
    kind: str
    count: int = 1


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
        meanings = _Meanings()
        self._calibration = _Calibration(*self._cross_fit(examples, meanings))
        self._reader = _Reader(examples, self._brands, meanings)

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
        examples = _examples(names, verticals)
        found = sorted({example.vertical for example in examples})
        if len(found) < 2:
            raise BadInputError(
                f"the names belong to {len(found)} verticals of the catalogue; give a names table whose column "
                "'product' has products of at least two verticals, written as in the catalogue"
            )
        examples += _taxonomy_examples(taxonomy, sorted({*verticals.values()}))
        return cls(examples + _other_queries(examples), dict.fromkeys(brands or ()))

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
        best, clues = self._reader.judge(readings, _Meanings())
        rows = []
        confidence = self._calibration.confidence(clues).tolist()
        thresholds = self._calibration.thresholds(clues, precision).tolist()
        for query, reading, vertical, sure, least in zip(
            queries, readings, best, confidence, thresholds, strict=True
        ):
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

    def _cross_fit(self, examples: Sequence[Example], meanings: _Meanings) -> tuple[Any, ...]:
        """Clues, whether the best vertical was right, and weights, for each name and each off-topic query."""
        folds = np.array([random.Random(example.group).randrange(FOLDS) for example in examples])  # noqa: S311
        asked_of: list[Example] = []
        clues, right = [], []
        for fold in range(FOLDS):
            reader = _Reader([examples[i] for i in np.flatnonzero(folds != fold)], self._brands, meanings)
            asked = [examples[i] for i in np.flatnonzero(folds == fold) if examples[i].kind in ASKED]
            best, found = reader.judge([reader.lexicon.read(example.text) for example in asked], meanings)
            clues.append(found)
            right += [guess == example.vertical for guess, example in zip(best, asked, strict=True)]
            asked_of += asked
        weights = np.array([ASKED[example.kind] * example.count for example in asked_of])
        on_topic = np.array([example.vertical != NONE for example in asked_of])
        for part, share in ((on_topic, 1 - NEGATIVES_SHARE), (~on_topic, NEGATIVES_SHARE)):
            weights[part] *= share * len(weights) / weights[part].sum()
        return np.concatenate(clues), np.array(right, bool), weights


class _Meanings:
    """Embeddings of texts, each computed once."""

    def __init__(self) -> None:
        self._known: dict[str, np.ndarray] = {}

    def of(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        new = sorted({text for text in texts if text not in self._known}, key=len)
        self._known.update(zip(new, embed_texts(new), strict=True))
        return np.stack([self._known[text] for text in texts]) if len(texts) else np.zeros((0, SIZE), np.float32)


class _Reader:
    """A lexicon, and the two linear models: over words and their parts, and over the meaning of the whole."""

    def __init__(self, examples: Sequence[Example], brands: Iterable[str], meanings: _Meanings) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

        named = [example for example in examples if example.kind in ("name", "tag", "synonym")]
        self.lexicon = Lexicon([(example.text, example.language) for example in named], brands)
        self.verticals = sorted({example.vertical for example in named})
        self.votes: dict[str, Counter[str]] = defaultdict(Counter)
        for example in named:
            for word in set(words_of(normalise(example.text))):
                self.votes[word][example.vertical] += 1
        settings = {"dtype": np.float32, "sublinear_tf": True, "lowercase": False}
        self._words = TfidfVectorizer(analyzer=_word_pairs, **settings)
        self._parts = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), min_df=2, **settings)
        texts = [normalise(example.text) for example in named]
        self._words.fit(texts)
        self._parts.fit(texts)
        self._by_words = LogisticRegression(C=10, max_iter=1000, tol=1e-3)
        self._by_words.fit(
            self._features(texts),
            [example.vertical for example in named],
            sample_weight=[WEIGHTS[example.kind] for example in named],
        )
        english = [example for example in examples if example.language in ("en", None)]
        if not {example.vertical for example in english} >= set(self.verticals):
            english = list(examples)
        self._by_meaning = LogisticRegression(C=10, max_iter=1000, tol=1e-3)
        self._by_meaning.fit(
            meanings.of([normalise(example.text) for example in english]),
            [example.vertical for example in english],
            sample_weight=[WEIGHTS[example.kind] for example in english],
        )

    def _features(self, texts: Sequence[str]) -> Any:
        from scipy import sparse

        return sparse.hstack([self._words.transform(texts), self._parts.transform(texts)]).tocsr()

    def judge(
        self, readings: Sequence[Reading], meanings: _Meanings
    ) -> tuple[list[str], Float[np.ndarray, "N F"]]:
        """The best vertical of each query, and clues to how sure it is."""
        texts = [" ".join(word for word in reading.words if not self.lexicon.is_strange(word)) for reading in readings]
        by_words = np.log(self._by_words.predict_proba(self._features(texts)) + _LEAST)
        by_meaning, none = self._meant(readings, meanings)
        known = np.array([max(reading.known, _LEAST_HEARD) for reading in readings])
        together = known[:, None] * by_words + by_meaning
        chances = np.exp(together)
        chances /= chances.sum(axis=1, keepdims=True)
        best = chances.argmax(axis=1)
        each = np.arange(len(best))
        first, second = np.sort(chances, axis=1)[:, :-3:-1].T
        said = np.column_stack(
            [
                np.log((first + _LEAST) / (1 - first + _LEAST)),
                np.log((first + _LEAST) / (second + _LEAST)),
                by_words[each, best],
                by_meaning[each, best],
                none,
            ]
        )
        read = np.array([(r.english, r.known, r.strange, len(r.fixed) / max(len(r.words), 1)) for r in readings])
        new = read[:, 1:2] == 0
        return [self.verticals[place] for place in best], np.hstack([read, new, said, said * new])

    def _meant(
        self, readings: Sequence[Reading], meanings: _Meanings
    ) -> tuple[Float[np.ndarray, "N C"], Float[np.ndarray, "N"]]:
        """Log chances of the verticals, and log odds of "none", by meaning; even where nothing is English."""
        flat = -np.log(len(self.verticals))
        chances = np.full((len(readings), len(self.verticals)), flat)
        none = np.zeros(len(readings))
        english = np.array([reading.english for reading in readings])
        asked = np.flatnonzero(english > 0)
        if len(asked):
            found = self._by_meaning.predict_proba(meanings.of([" ".join(readings[i].words) for i in asked]))
            labels = self._by_meaning.classes_.tolist()
            outside = found[:, labels.index(NONE)] if NONE in labels else np.zeros(len(asked))
            inside = np.log(found[:, [labels.index(name) for name in self.verticals]] + _LEAST)
            inside -= np.log(1 - outside + _LEAST)[:, None]
            share = english[asked]
            chances[asked] = flat + share[:, None] * (inside - flat)
            none[asked] = share * np.log((outside + _LEAST) / (1 - outside + _LEAST))
        return chances, none

    def why(self, reading: Reading, vertical: str, given: bool) -> str:
        """What decided, in a few words."""
        if not reading.words:
            return "no words"
        said = [f"{typo!r} read as {word!r}" for typo, word in reading.fixed]
        for word in reading.words:
            votes = self.votes.get(word)
            if votes and votes[vertical]:
                said.append(f"{word!r} in {votes[vertical]} of {votes.total()} names of {vertical}")
        if not any(word in self.votes for word in reading.words):
            said.append("none of its words is in a name")
        if not given:
            return "; ".join([*said, f"too uncertain for {vertical}"])
        return "; ".join(said) if said else f"means what names of {vertical} mean"


class _Calibration:
    """Confidence from clues, and how often confidence was right on products left out.

    Queries that are at least half English, where meaning is heard, have a curve of their own.

    Args:
        clues: what `_Reader.judge` returns; [N, F].
        right: whether the vertical it chose was the right one; [N].
        weights: of each, in which off-topic queries have their share; [N].
    """

    def __init__(
        self, clues: Float[np.ndarray, "N F"], right: np.ndarray, weights: Float[np.ndarray, "N"]
    ) -> None:
        english = _is_english(clues)
        self._curves = {
            part: _Curve.fit(clues[english == part], right[english == part], weights[english == part])
            for part in (True, False)
            if len(set(right[english == part].tolist())) == 2
        }

    def confidence(self, clues: Float[np.ndarray, "N F"]) -> Float[np.ndarray, "N"]:
        """The chance that the vertical chosen is right; 0 where no such query was seen."""
        sure = np.zeros(len(clues))
        for part, curve in self._curves.items():
            if (rows := _is_english(clues) == part).any():
                sure[rows] = curve.model.predict_proba(clues[rows])[:, 1]
        return sure

    def thresholds(self, clues: Float[np.ndarray, "N F"], precision: float) -> Float[np.ndarray, "N"]:
        """The confidence from which on a vertical is given, for each query."""
        least = {part: curve.threshold(precision) for part, curve in self._curves.items()}
        return np.array([least.get(bool(part), 1.0) for part in _is_english(clues)])


class _Curve(NamedTuple):
    model: Any
    confidences: Float[np.ndarray, "N"]
    precisions: Float[np.ndarray, "N"]

    @classmethod
    def fit(cls, clues: Float[np.ndarray, "N F"], right: np.ndarray, weights: Float[np.ndarray, "N"]) -> _Curve:
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=10, max_iter=5000).fit(clues, right, sample_weight=weights)
        confidence = model.predict_proba(clues)[:, 1]
        order = np.argsort(-confidence, kind="stable")
        total = np.cumsum(weights[order])
        return cls(model, confidence[order], np.cumsum((weights * right)[order]) / total)

    def threshold(self, precision: float) -> float:
        good = np.flatnonzero(self.precisions >= precision)
        return float(self.confidences[good[-1]]) if len(good) else 1.0


def _is_english(clues: Float[np.ndarray, "N F"]) -> np.ndarray:
    return np.asarray(clues[:, 0] >= 0.5)


def _word_pairs(text: str) -> list[str]:
    words = text.split()
    return words + [f"{first} {second}" for first, second in zip(words, words[1:], strict=False)]


def _examples(names: Iterable[ProductName], verticals: Mapping[str, str]) -> list[Example]:
    """The distinct names and tags of the products, where products of the same names are one group."""
    rows = [row for row in names if row.product in verticals]
    called: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        called[row.product].append(f"{row.language} {row.name}")
    groups = {product: "|".join(sorted(names)) for product, names in called.items()}  # finishes of one thing
    counts: Counter[Example] = Counter()
    tags: dict[tuple[str, str], Example] = {}
    for row in rows:
        vertical, group = verticals[row.product], groups[row.product]
        counts[Example(row.name, row.language, vertical, group, "name")] += 1
        for tag in row.tags:
            tags.setdefault((tag, vertical), Example(tag, row.language, vertical, group, "tag"))
    return [example._replace(count=count) for example, count in counts.items()] + list(tags.values())


def _taxonomy_examples(
    taxonomy: Mapping[str, Sequence[str]] | Path | str | None, verticals: Sequence[str]
) -> list[Example]:
    """The words of a taxonomy, and the verticals' own names, which weigh as much."""
    if isinstance(taxonomy, Path | str):
        try:
            taxonomy = tomllib.loads(Path(taxonomy).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadInputError(f"{taxonomy}: not a readable TOML file: {error}") from None
    examples = [Example(vertical, "en", vertical, vertical, "tag") for vertical in verticals]
    for vertical, words in (taxonomy or {}).items():
        if vertical not in verticals:
            raise BadInputError(f"taxonomy: the catalogue has no vertical {vertical!r}; {did_you_mean(vertical, verticals)}")
        if isinstance(words, str) or not all(isinstance(word, str) for word in words):
            raise BadInputError(f"taxonomy: {vertical!r} must be a list of words, such as {vertical} = [\"word\"]")
        examples += [Example(word, None, vertical, f"{vertical} {word}", "synonym") for word in words]
    return examples


def _other_queries(examples: Sequence[Example]) -> list[Example]:
    """Queries that belong to no vertical, and names among everyday words, both from the languages' frequent words."""
    from wordfreq import top_n_list

    rng = random.Random(0)  # noqa: S311
    languages = Counter((example.language or "en").partition("-")[0] for example in examples)
    spoken = {code: count for code, count in languages.items() if code in spoken_languages()} or {"en": 1}
    frequent = {code: top_n_list(code, _FREQUENT_WORDS, wordlist="small") for code in spoken}
    named = {word for example in examples for word in normalise(example.text).split()}
    others = [line for line in Path(__file__).with_name("off_topic.txt").read_text(encoding="utf-8").splitlines()]
    made = [Example(line, None, NONE, line, "written") for line in others if line and not line.startswith("#")]
    for code, count in spoken.items():
        for _ in range(max(200, count // 2)):
            words = [word for word in rng.sample(frequent[code], rng.randint(1, 4)) if normalise(word) not in named]
            if words:
                made.append(Example(" ".join(words), code, NONE, " ".join(words), "frequent"))
    for example in examples:
        code = (example.language or "en").partition("-")[0]
        if code == "en" and code in spoken and example.kind == "name":
            words = [example.text, *rng.sample(frequent[code][:_EVERYDAY_WORDS], rng.randint(1, 2))]
            rng.shuffle(words)
            made.append(example._replace(text=" ".join(words), kind="everyday"))
    return made
