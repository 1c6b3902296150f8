"""What parses but can hardly be meant, in a catalogue's names and pictures: said when it is built, and by `info`."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

SUSPECT_COLUMNS: Final = ("id", "vertical", "product", "brand", "style", "split", "digest")
"""The columns that `suspicious` looks at."""

LARGE_SHARE: Final = 1 / 3
"""A product with more of a vertical's labelled images is likely to be several, or none."""

_LARGE_IMAGES: Final = 10
_LARGE_PRODUCTS: Final = 5
_SHOWN: Final = 3

_MISSING: Final = re.compile(
    r"nan|none|null|nil|nat|n\.?/?a\.?|<na>|\(null\)|unknown|undefined|unbekannt|inconnu|tb[acd]|[-\u2013\u2014?.#]+|-1"
    r"|#(n/a|ref!|name\?|value!|div/0!|null!|num!)",
    re.IGNORECASE,
)
_MONTH: Final = "(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"


def _pattern(pattern: str) -> Callable[[str], object]:
    return re.compile(pattern, re.IGNORECASE | re.DOTALL).fullmatch


def stands_for_missing(name: str) -> bool:
    """Whether a name is what programs write where there is no value: `nan`, `None`, `#N/A`, `-`."""
    return _MISSING.fullmatch(name) is not None


def _is_misread(name: str) -> bool:
    """UTF-8 that was taken for the characters of Western Europe (CafÃ©), or what was lost on the way."""
    if name.isascii():
        return False
    try:
        name.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return "\ufffd" in name
    return True


_NAME_CHECKS: Final[tuple[tuple[Callable[[str], object], str, str], ...]] = (
    (stands_for_missing, "stand for a missing value", "leave the field empty where there is none"),
    (
        _pattern(r"\d([.,]\d+)?E\+\d{2,3}|\d[.,]\d+E-\d{2,3}|[1-9]\d{14}0{3,}"),
        "are numbers that a spreadsheet has rounded",
        "format the column as text before it is filled, and export it again",
    ),
    (
        _pattern("true|false|wahr|falsch"),
        "are what a spreadsheet makes of yes and no",
        "format the column as text before it is filled, and export it again",
    ),
    (_pattern(r"\d+[.,]0+"), "are whole numbers with decimals", "export them as text: 123.0 is another name than 123"),
    (
        _pattern(rf"\d\d?[-. ]{_MONTH}([-. ]\d+)?|{_MONTH}-\d+|\d{{4}}-\d\d-\d\d 00:00:00|\d\d?[/.]\d\d?[/.]\d{{4}}"),
        "are dates, which spreadsheets make of codes",
        "format the column as text before it is filled, and export it again",
    ),
    (
        _pattern(r"""b?(['"]).*\1|[\[{(]['"].*"""),
        "are written as in a program",
        "write the text alone, without quotes and brackets",
    ),
    (_is_misread, "were read in the wrong encoding", "export them as UTF-8"),
)
"""Whether a name is one of a kind; what those are; what to do about them."""

_ONE_WAY: Final = str.maketrans(
    dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-")
    | dict.fromkeys("\u2018\u2019\u00b4`", "'")
    | dict.fromkeys("\u201c\u201d\u201e", '"')
)
"""Dashes and quotation marks, for which editors put others in."""


def suspicious(table: pa.Table) -> list[str]:
    """What a user should look at in a table with `SUSPECT_COLUMNS`, a line a kind, each with its remedy."""
    found = []
    for column in ("vertical", "product", "brand", "style"):
        grouped = table.group_by(column).aggregate([([], "count_all")]).to_pydict()
        counts = {n: c for n, c in zip(grouped[column], grouped["count_all"], strict=True) if n is not None}
        found += _of_names(column, counts)
    if not pc.any(pc.is_valid(table["product"])).as_py():
        found.append(
            "no image has a product, so there is nothing to learn from; give a column 'product', or folders "
            "vertical/product/image"
        )
    return found + _large_products(table) + _repeated_pictures(table)


def _of_names(column: str, counts: dict[str, int]) -> list[str]:
    found = []
    for is_one, what, remedy in _NAME_CHECKS:
        hit = [name for name in counts if is_one(name)]
        if hit:
            images = sum(counts[name] for name in hit)
            on = f"on {images:,} image{'s' if images != 1 else ''}"
            found.append(f"names of {column} that {what}: {_shown(map(repr, hit))}, {on}; {remedy}")
    looks = defaultdict(list)
    for name in counts:
        if not stands_for_missing(name):
            looks[_look(name)].append(name)
    alike = [names for names in looks.values() if len(names) > 1]
    if alike:
        first = _shown(map(repr, sorted(alike[0])))
        more = f", and {len(alike) - 1:,} more such names" if len(alike) > 1 else ""
        found.append(
            f"names of {column} that differ in letter case, spaces or the form of characters alone: {first}{more}; "
            "write each in one way"
        )
    return found


def _look(name: str) -> str:
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name).translate(_ONE_WAY)
        name = "".join(character for character in name if unicodedata.category(character) != "Cf")
    return " ".join(name.split()).casefold()


def _large_products(table: pa.Table) -> list[str]:
    labelled = table.filter(pc.is_valid(table["product"]))
    products: dict[str, dict[str, int]] = defaultdict(dict)
    for row in labelled.group_by(["vertical", "product"]).aggregate([([], "count_all")]).to_pylist():
        products[row["vertical"]][row["product"]] = row["count_all"]
    found = []
    for vertical, counts in products.items():
        name, images = max(counts.items(), key=lambda item: item[1])
        share = images / sum(counts.values())
        if share > LARGE_SHARE and images >= _LARGE_IMAGES and len(counts) >= _LARGE_PRODUCTS:
            found.append(
                f"one product, {name!r}, has {share:.0%} of the labelled images of {vertical}; where it stands for "
                "several products, or for none, leave the field empty"
            )
    return found


def _repeated_pictures(table: pa.Table) -> list[str]:
    counts = table.group_by("digest").aggregate([("product", "count_distinct"), ("split", "count_distinct")])
    found = []
    for column, where, remedy in (
        ("product", "under several products", "give it one product, or none"),
        ("split", "in several splits", "what is measured on it is too good or too bad; keep it in one"),
    ):
        pictures = counts.filter(pc.greater(counts[f"{column}_count_distinct"], 1))["digest"]
        if len(pictures):
            rows = table.filter(pc.equal(table["digest"], pictures[0])).sort_by("id").to_pylist()
            ids = {row[column]: row["id"] for row in reversed(rows) if row[column] is not None}
            first = _shown(f"{ids[value]} in {value!r}" for value in sorted(ids))
            found.append(f"the same picture, byte for byte, {where}: {len(pictures):,} such ({first}); {remedy}")
    return found


def _shown(names: Iterable[str]) -> str:
    listed: Sequence[str] = list(names)
    more = f" and {len(listed) - _SHOWN:,} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
