"""Texts from which a query parser learns: names, tags, synonyms, and queries about other things."""

from __future__ import annotations

import random
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from univert.core.errors import BadInputError, did_you_mean
from univert.data.lexicon import normalise, spoken_languages
from univert.data.names import ProductName

NONE: Final = ""
"""The label of texts that belong to no vertical."""

WEIGHTS: Final = {"name": 1.0, "tag": 0.3, "everyday": 0.5, "written": 2.0, "frequent": 1.0}
"""How much an example of each kind counts: a tag says less than a name, and an off-topic query that a person wrote more
than frequent words."""

_FREQUENT_WORDS: Final = 20_000
_EVERYDAY_WORDS: Final = 1_500


class Example(NamedTuple):
    """A text whose vertical is known.

    Attributes:
        text: a name, a tag, a synonym or a query.
        language: its code; None where it is not known.
        vertical: `NONE` where it belongs to none.
        kind: `name`; `tag`, which also is a synonym; `everyday`, a name among everyday words; or off-topic: `written`
            by a person, or made of `frequent` words.
        product: whose text it is; None for what no product has.
    """

    text: str
    language: str | None
    vertical: str
    kind: str
    product: str | None = None


def name_examples(names: Iterable[ProductName], verticals: Mapping[str, str]) -> list[Example]:
    """The names and tags of the products that have a vertical."""
    examples = []
    for row in names:
        if row.product in verticals and normalise(row.name):
            vertical = verticals[row.product]
            examples.append(Example(row.name, row.language, vertical, "name", row.product))
            examples += [Example(tag, row.language, vertical, "tag", row.product) for tag in row.tags]
    return examples


def taxonomy_examples(
    taxonomy: Mapping[str, Sequence[str]] | Path | str | None, verticals: Sequence[str]
) -> list[Example]:
    """The words of a taxonomy, and the verticals' own names."""
    if isinstance(taxonomy, Path | str):
        try:
            taxonomy = tomllib.loads(Path(taxonomy).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadInputError(f"{taxonomy}: not a readable TOML file: {error}") from None
    examples = [Example(vertical, "en", vertical, "tag") for vertical in verticals]
    for vertical, words in (taxonomy or {}).items():
        if vertical not in verticals:
            hint = did_you_mean(vertical, verticals)
            raise BadInputError(f"taxonomy: the catalogue has no vertical {vertical!r}; {hint}")
        if isinstance(words, str) or not all(isinstance(word, str) for word in words):
            raise BadInputError(f'taxonomy: {vertical!r} must be a list of words, such as {vertical} = ["word"]')
        examples += [Example(word, None, vertical, "tag") for word in words]
    return examples


def off_topic_examples(examples: Sequence[Example]) -> list[Example]:
    """Queries that belong to no vertical, and English names among everyday words."""
    from wordfreq import top_n_list

    rng = random.Random(0)  # noqa: S311
    distinct = {(example.text, example.language, example.vertical) for example in examples}
    languages = Counter((language or "en").partition("-")[0] for _, language, _ in sorted(distinct, key=str))
    spoken = {code: count for code, count in languages.items() if code in spoken_languages()} or {"en": 1}
    named = {word for example in examples for word in normalise(example.text).split()}
    others = Path(__file__).with_name("off_topic.txt").read_text(encoding="utf-8").splitlines()
    made = [Example(line, None, NONE, "written") for line in others if line and not line.startswith("#")]
    for code, count in spoken.items():
        frequent = top_n_list(code, _FREQUENT_WORDS, wordlist="small")
        for _ in range(max(200, count // 2)):
            words = [word for word in rng.sample(frequent, rng.randint(1, 4)) if normalise(word) not in named]
            if words:
                made.append(Example(" ".join(words), code, NONE, "frequent"))
    everyday = top_n_list("en", _EVERYDAY_WORDS, wordlist="small")
    for example in examples:
        if example.kind == "name" and example.language in ("en", None):
            words = [example.text, *rng.sample(everyday, rng.randint(1, 2))]
            rng.shuffle(words)
            made.append(example._replace(text=" ".join(words), kind="everyday"))
    return made
