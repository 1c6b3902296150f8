"""Scripts of the glyph data set: which characters are products, and of which vertical."""

from __future__ import annotations

import functools
import unicodedata

from fontTools.unicodedata import script

VERTICALS = {
    "arabic": "Arab",
    "cyrillic": "Cyrl",
    "devanagari": "Deva",
    "greek": "Grek",
    "han": "Hani",
    "hangul": "Hang",
    "latin": "Latn",
    "symbols": "Zyyy",
}
"""The name of each vertical and its script in Unicode; symbols belong to none, which Unicode calls common."""

_BY_SCRIPT = {code: vertical for vertical, code in VERTICALS.items()}


@functools.cache
def vertical_of(character: str) -> str | None:
    """The vertical that a character is a product of, or None for a character that is left out.

    Letters and numerals of a script count, and of Hangul the syllables, as long as compatibility normalisation
    (NFKC) leaves them as they are: fullwidth, presentation and compatibility forms are other names of the
    same character. Symbols (mathematical, currency, other) also count where normalisation spells them out or
    takes their circle away, since then they look like nothing else; box drawings and block elements do not, since
    what tells many of them apart is their place in the line.

    Example:
        >>> vertical_of("Σ"), vertical_of("∑"), vertical_of("ﬁ"), vertical_of("㎏")
        ('greek', 'symbols', None, 'symbols')
    """
    vertical = _BY_SCRIPT.get(script(character))
    category = unicodedata.category(character)
    normal = unicodedata.normalize("NFKC", character)
    if vertical == "symbols":
        if "\u2500" <= character <= "\u259f":
            return None
        own = len(normal) > 1 or unicodedata.decomposition(character).startswith("<circle>")
        return vertical if category in ("Sm", "Sc", "So") and (normal == character or own) else None
    if category[0] not in "LN" or normal != character:
        return None
    if vertical == "hangul" and not "가" <= character <= "힣":
        return None  # pieces of syllables
    return vertical
