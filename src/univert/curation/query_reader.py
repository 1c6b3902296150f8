"""What a query says: its words by a lexicon, its vertical by two linear models."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from jaxtyping import Float

from univert.curation.query_examples import NONE, WEIGHTS, Example
from univert.data.lexicon import Lexicon, Reading, normalise, words_of
from univert.models.text_embedding import SIZE, embed_texts

_LEAST_HEARD: Final = 0.3
"""How far words count of which none is in a name, for their parts."""
_LEAST: Final = 1e-4


class Meanings:
    """Embeddings of texts, each computed once."""

    def __init__(self) -> None:
        self._known: dict[str, np.ndarray] = {}

    def of(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """Unit vectors of texts, in their order."""
        new = sorted({text for text in texts if text not in self._known}, key=len)
        self._known.update(zip(new, embed_texts(new), strict=True))
        return np.stack([self._known[text] for text in texts]) if len(texts) else np.zeros((0, SIZE), np.float32)


class QueryReader:
    """A lexicon, and the two linear models: over words and their parts, and over the meaning of the whole."""

    def __init__(self, examples: Sequence[Example], brands: Iterable[str], meanings: Meanings) -> None:
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
        self._parts = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), **settings)
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

    def judge(self, readings: Sequence[Reading], meanings: Meanings) -> tuple[list[str], Float[np.ndarray, "N F"]]:
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
        self, readings: Sequence[Reading], meanings: Meanings
    ) -> tuple[Float[np.ndarray, "N C"], Float[np.ndarray, "N"]]:
        """Log chances of the verticals, and log odds of "none", by meaning; even where nothing is English."""
        flat = -np.log(len(self.verticals))
        chances = np.full((len(readings), len(self.verticals)), flat)
        none = np.zeros(len(readings))
        english = np.array([reading.english for reading in readings])
        asked = np.flatnonzero(english > 0)
        if len(asked):
            found = self._by_meaning.predict_proba(meanings.of([" ".join(readings[i].words) for i in asked.tolist()]))
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


def _word_pairs(text: str) -> list[str]:
    words = text.split()
    return words + [f"{first} {second}" for first, second in pairwise(words)]
