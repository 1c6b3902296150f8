"""Texts from which a query parser learns: names, tags, synonyms, and queries about other things."""

from __future__ import annotations

import random
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from univert.core.errors import BadInputError, did_you_mean
from univert.data.lexicon import normalise, spoken_languages
from univert.data.names import ProductName

NONE: Final = ""
"""The label of texts that belong to no vertical."""

WEIGHTS: Final = {"name": 1.0, "synonym": 1.0, "tag": 0.3, "everyday": 0.5, "frequent": 1.0, "written": 1.0}
"""The kinds of examples, and how much each counts in learning: tags say less than names; `everyday` is a name among
everyday words, `frequent` are words of no name, `written` are off-topic queries that people wrote."""

_FREQUENT_WORDS: Final = 20_000
_EVERYDAY_WORDS: Final = 1_500


class Example(NamedTuple):
    """A text whose vertical is known.

    Attributes:
        text: a name, a tag, a synonym or a query.
        language: its code; None where it is not known.
        vertical: `NONE` where it belongs to none.
        group: what must not be split between folds has one.
        kind: a key of `WEIGHTS`.
        products: how many are called so.
    """

    text: str
    language: str | None
    vertical: str
    group: str
    kind: str
    products: int = 1


def name_examples(names: Iterable[ProductName], verticals: Mapping[str, str]) -> list[Example]:
    """The distinct names and tags of the products, where products of the same names are one group."""
    rows = [row for row in names if row.product in verticals and normalise(row.name)]
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
    return [example._replace(products=count) for example, count in counts.items()] + list(tags.values())


def taxonomy_examples(
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
            hint = did_you_mean(vertical, verticals)
            raise BadInputError(f"taxonomy: the catalogue has no vertical {vertical!r}; {hint}")
        if isinstance(words, str) or not all(isinstance(word, str) for word in words):
            raise BadInputError(f'taxonomy: {vertical!r} must be a list of words, such as {vertical} = ["word"]')
        examples += [Example(word, None, vertical, f"{vertical} {word}", "synonym") for word in words]
    return examples


def off_topic_examples(examples: Sequence[Example]) -> list[Example]:
    """Queries that belong to no vertical, and names among everyday words, both from the languages' frequent words."""
    from wordfreq import top_n_list

    rng = random.Random(0)  # noqa: S311
    languages = Counter((example.language or "en").partition("-")[0] for example in examples)
    spoken = {code: count for code, count in languages.items() if code in spoken_languages()} or {"en": 1}
    frequent = {code: top_n_list(code, _FREQUENT_WORDS, wordlist="small") for code in spoken}
    named = {word for example in examples for word in normalise(example.text).split()}
    others = Path(__file__).with_name("off_topic.txt").read_text(encoding="utf-8").splitlines()
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
