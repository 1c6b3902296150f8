"""The words of a catalogue: what its names are made of, which typos stand for them, colours and languages."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Final, NamedTuple

_TOKEN: Final = re.compile(r"[^\W_]+(?:['\u2019][^\W\d_]+)?")
_CJK: Final = re.compile(r"[぀-ヿ㐀-䶿一-鿿가-힯]+")
_ACCENTS: Final = re.compile("[\u0300-\u036f]")
_LETTERS: Final = str.maketrans(
    {"ß": "ss", "ø": "o", "ł": "l", "đ": "d", "\u0131": "i", "æ": "ae", "œ": "oe", "ё": "\u0435"}
)

COMMON_ENGLISH, COMMON_ELSEWHERE = 15_000, 4_000
"""So many of the most frequent words of a language are not taken for typos of other words."""

_SMALL_WORDS: Final = 60
"""So many of the most frequent words of a language say nothing of a product, such as "with"."""

_PLURALS: Final = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("ses", "s"), ("xes", "x"), ("hes", "h"), ("s", ""))


@lru_cache(maxsize=1 << 16)
def normalise(text: str) -> str:
    """Text as it is compared: lower case, no accents, one space between words.

    Example:
        >>> normalise("  Étagère-Murale, 2 PORTES ")
        'etagere murale 2 portes'
    """
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    text = unicodedata.normalize("NFC", _ACCENTS.sub("", text.translate(_LETTERS)))
    return " ".join(_TOKEN.findall(text))


def words_of(text: str) -> list[str]:
    """The words of a normalised text; a run of Chinese, Japanese or Korean is its pairs of characters.

    Example:
        >>> words_of("mesa de café 本棚付")
        ['mesa', 'de', 'café', '本棚', '棚付']
    """
    words: list[str] = []
    for word in text.split():
        start = 0
        for run in _CJK.finditer(word):
            words += filter(None, [word[start : run.start()]])
            characters = run[0]
            words += [characters[i : i + 2] for i in range(max(1, len(characters) - 1))]
            start = run.end()
        words += filter(None, [word[start:]])
    return words


class Reading(NamedTuple):
    """One query, read word by word.

    Attributes:
        words: the words that may name a product, typos replaced.
        fixed: `typo -> word` for each that was replaced.
        brand: None where the query names none.
        colour: an English word; None where the query names none.
        language: a code; None where the words do not tell.
        known: the share of `words` that the catalogue's names have.
        english: the share of `words` that an English name has, or that are everyday English and in no other name.
    """

    words: tuple[str, ...]
    fixed: tuple[tuple[str, str], ...]
    brand: str | None
    colour: str | None
    language: str | None
    known: float
    english: float


class TextReading(NamedTuple):
    """Words to search with, as they were read.

    Attributes:
        text: as it was typed.
        words: what is searched for: typos replaced, and colours by the name that they have in the catalogue.
        unknown: the words that the catalogue does not have in any form; those of every sentence are left out.
        known: how many it does have.
    """

    text: str
    words: str
    unknown: tuple[str, ...]
    known: int

    def told(self) -> str | None:
        """What to tell who asked: what was replaced and what is not known; None where there is nothing to tell."""
        parts = []
        if self.words != self.text:
            parts.append(f"searched for: {self.words!r}")
        if self.unknown:
            parts.append("not known here: " + ", ".join(map(repr, self.unknown)))
        if not self.known:
            parts.append("no word is known, so the answer goes by meaning alone")
        return "; ".join(parts) or None


class Lexicon:
    """Words with the languages they occur in.

    Args:
        texts: names, tags and synonyms, each with its language or None.
        brands: as a user writes them; `-` stands for a space.
    """

    def __init__(self, texts: Iterable[tuple[str, str | None]], brands: Iterable[str] = ()) -> None:
        self.languages: dict[str, Counter[str]] = defaultdict(Counter)
        for text, language in texts:
            for word in words_of(normalise(text)):
                self.languages[word][language or ""] += 1
        self._totals = Counter[str]()
        for languages in self.languages.values():
            self._totals.update(languages)
        self._by_start: dict[str, list[str]] = defaultdict(list)
        for word in self.languages:
            if len(word) > 3 and not _CJK.match(word):
                self._by_start[word[0]].append(word)
        self._brands = {normalise(brand): brand for brand in brands}
        self._longest_brand = max((len(brand.split()) for brand in self._brands), default=0)
        self._codes = {"en", *(code.partition("-")[0] for code in self._totals if code)} & spoken_languages()
        self.nearest = lru_cache(maxsize=1 << 18)(self._nearest)

    def read(self, query: str) -> Reading:
        """Take a query apart."""
        parts = normalise(query).split()
        brand, parts = self._take_brand(parts)
        words, fixed = [], []
        typed = words_of(" ".join(parts))
        colour = next(filter(None, map(colour_of, typed)), None)
        # where nothing else is left, a colour may be what a product is called, such as an orange
        for word in [word for word in typed if not colour_of(word)] or list(filter(self._as_it_is, typed)):
            near = self.nearest(word)
            if near not in (None, word):
                fixed.append((word, str(near)))
            words.append(near or word)
        known, english = (
            sum(map(test, words)) / max(len(words), 1) for test in (self.languages.__contains__, self.is_english)
        )
        return Reading(tuple(words), tuple(fixed), brand, colour, self._language(words), known, english)

    def is_english(self, word: str) -> bool:
        """Whether an English name has this word, or English uses it often and names in other languages do not."""
        languages = self.languages.get(word, Counter())
        return "en" in languages or (word in common_words("en") and not {*languages} - {""})

    def read_text(self, text: str) -> TextReading:
        """Read words to search with, in any language that the texts are in.

        Example:
            >>> lexicon = Lexicon([("Red armchair", "en"), ("Fauteuil", "fr")])
            >>> lexicon.read_text("fauteuil rouge for xyzzy")
            TextReading(text='fauteuil rouge for xyzzy', words='fauteuil red for xyzzy', unknown=('xyzzy',), known=2)
        """
        read, unknown, known = [], [], 0
        for word in normalise(text).split():
            instead: str | None = word
            if not any(map(self._as_it_is, words_of(word))):
                colour = colour_of(word)
                instead = colour if colour in self.languages else self.nearest(word)
            read.append(instead or word)
            known += instead is not None
            if instead is None and not any(word in common_words(code, _SMALL_WORDS) for code in self._codes):
                unknown.append(word)
        changed = read != normalise(text).split()
        return TextReading(text, " ".join(read) if changed else text, tuple(dict.fromkeys(unknown)), known)

    def is_strange(self, word: str) -> bool:
        """Whether a language uses this word often, and no name does."""
        return word not in self.languages and any(word in common_words(code) for code in self._codes)

    def _take_brand(self, parts: list[str]) -> tuple[str | None, list[str]]:
        for size in range(min(self._longest_brand, len(parts)), 0, -1):
            for start in range(len(parts) - size + 1):
                if (name := " ".join(parts[start : start + size])) in self._brands:
                    return self._brands[name], parts[:start] + parts[start + size :]
        return None, parts

    def _nearest(self, word: str) -> str | None:
        """The catalogue's word that `word` is, is a plural of, or is mistyped for; None where there is none."""
        if found := self._as_it_is(word):
            return found
        if len(word) < 5 or _CJK.match(word) or any(map(str.isdigit, word)) or self.is_strange(word):
            return None
        return self._mistyped(word)

    def _as_it_is(self, word: str) -> str | None:
        """The catalogue's word that `word` is, or is a plural of."""
        if word in self.languages:
            return word
        for end, instead in _PLURALS:
            if (
                word.endswith(end)
                and (single := word.removesuffix(end) + instead) in self.languages
                and len(single) > 2
            ):
                return single
        return None

    def _mistyped(self, word: str) -> str | None:
        from rapidfuzz import process
        from rapidfuzz.distance import OSA

        limit = 1 if len(word) < 8 else 2
        candidates = self._by_start[word[0]] + (self._by_start[word[1]] if word[1] != word[0] else [])
        found = process.extract(word, candidates, scorer=OSA.distance, score_cutoff=limit, limit=4)
        return max(found, key=lambda one: (-one[1], self.languages[one[0]].total()))[0] if found else None

    def _language(self, words: Sequence[str]) -> str | None:
        """The language whose names use these words most; None where two do as much."""
        scores: dict[str, float] = defaultdict(float)
        for word in words:
            for language, count in self.languages.get(word, {}).items():
                scores[language] += count / self._totals[language]
        scores.pop("", None)
        best = sorted(scores, key=lambda language: -scores[language])[:2]
        if not best or (len(best) == 2 and scores[best[0]] < 1.5 * scores[best[1]]):
            return None
        return best[0]


@lru_cache(maxsize=1 << 16)
def colour_of(word: str) -> str | None:
    """The colour that a normalised word names, in one of some twenty languages.

    Example:
        >>> colour_of("rouges"), colour_of("赤い"), colour_of("redwood")
        ('red', 'red', None)
    """
    colours = _colours()
    return colours.get(word) or next(
        (colours[start] for end in range(len(word), len(word) - 4, -1) if (start := f"{word[:end]}*") in colours), None
    )


@cache
def _colours() -> dict[str, str]:
    table = tomllib.loads(Path(__file__).with_name("colours.toml").read_text(encoding="utf-8"))
    return {
        normalise(word) + "*" * word.endswith("*"): colour
        for colour, words in reversed(table.items())
        for word in words
    }


@cache
def spoken_languages() -> frozenset[str]:
    """The languages whose frequent words are known."""
    from wordfreq import available_languages

    return frozenset(available_languages("small"))


@cache
def common_words(code: str, count: int | None = None) -> frozenset[str]:
    """The most frequent words of a language, normalised; None takes so many as are not taken for typos."""
    from wordfreq import top_n_list

    count = count or (COMMON_ENGLISH if code == "en" else COMMON_ELSEWHERE)
    return frozenset(map(normalise, top_n_list(code, count, wordlist="small")))
