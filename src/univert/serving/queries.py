"""A search as the client put it: the fields of the form, checked one by one."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from univert.core.errors import BadInputError
from univert.data.decode import BoxXyxyPx
from univert.search.filters import FILTER_COLUMNS, sql_condition
from univert.search.records import FilterValue, Where
from univert.serving.problems import Problem
from univert.serving.regions import parse_box

K_DEFAULT: Final = 24
K_MAX: Final = 100
FILTER_FIELDS: Final = ("vertical", "brand", "style", "source")
SEARCH_FIELDS: Final = ("like", "box", "k", *FILTER_FIELDS, "filter")
EMBED_FIELDS: Final = ("box",)

_VALUES_MAX: Final = 100
_TEXT_MAX: Final = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchQuery:
    """What is looked for, besides the photo.

    Attributes:
        like: the id of an indexed image to take instead of a photo.
        box_xyxy_px: the item within the upright photo; null for the whole photo.
        k: how many hits.
        where: filters by column.
    """

    like: str | None = None
    box_xyxy_px: BoxXyxyPx | None = None
    k: int = K_DEFAULT
    where: Where | None = None


def parse_search(fields: Mapping[str, Sequence[str]], *, has_photo: bool) -> SearchQuery:
    """The query that a form asks.

    Args:
        fields: its fields by name.
        has_photo: whether a photo came with them.

    Raises:
        Problem: `validation`, `bad-box` or `bad-filter`.
    """
    _check_names(fields, SEARCH_FIELDS)
    like = _single(fields, "like") or None
    if has_photo and like is not None:
        raise Problem("validation", "give either a photo or like, not both")
    if not has_photo and like is None:
        raise Problem("validation", "photo is missing; send one, or an item's id as like")
    box = parse_single_box(fields)
    if box is not None and like is not None:
        raise Problem("validation", "box belongs to a photo; leave it out with like")
    if like is not None and len(like) > _TEXT_MAX:
        raise Problem("not-found", "no item has an id that long")
    return SearchQuery(like=like, box_xyxy_px=box, k=_parse_k(_single(fields, "k")), where=_parse_where(fields))


def parse_embed(fields: Mapping[str, Sequence[str]]) -> BoxXyxyPx | None:
    """The box of a form that asks for a vector.

    Raises:
        Problem: `validation` or `bad-box`.
    """
    _check_names(fields, EMBED_FIELDS)
    return parse_single_box(fields)


def check_parameters(given: Iterable[str], known: Sequence[str] = ()) -> None:
    """Refuse parameters in the address that a route does not have: what is passed over looks like what was heeded.

    Raises:
        Problem: `validation`.
    """
    for name in given:
        if name not in known:
            there = f"there are {', '.join(known)}" if known else "this address takes none"
            raise Problem("validation", f"unknown parameter {name[:60]!r} in the address; {there}")


def parse_single_box(fields: Mapping[str, Sequence[str]]) -> BoxXyxyPx | None:
    """The box of a form; null where it is absent or empty."""
    text = _single(fields, "box")
    return parse_box(text) if text else None


def _check_names(fields: Mapping[str, Sequence[str]], valid: Sequence[str]) -> None:
    for name in fields:
        if name not in valid:
            near = difflib.get_close_matches(name[:60], valid, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"there are photo, {', '.join(valid)}"
            raise Problem("validation", f"unknown field {name[:60]!r}; {hint}")


def _single(fields: Mapping[str, Sequence[str]], name: str) -> str | None:
    values = fields.get(name, ())
    if len(values) > 1:
        raise Problem("validation", f"{name} came {len(values)} times; give it once")
    return values[0] if values else None


def _parse_k(text: str | None) -> int:
    if not text:
        return K_DEFAULT
    plain = text.isascii() and text.isdigit() and len(text) <= 9
    if not plain or not 1 <= int(text) <= K_MAX:
        raise Problem("validation", f"k must be a whole number from 1 to {K_MAX}, got {text[:60]!r}")
    return int(text)


def _parse_where(fields: Mapping[str, Sequence[str]]) -> Where | None:
    where: dict[str, FilterValue] = {
        name: [value for value in fields[name] if value] for name in FILTER_FIELDS if any(fields.get(name, ()))
    }
    for column, value in _parse_filter(_single(fields, "filter")).items():
        if column in where:
            raise Problem("bad-filter", f"{column} is filtered twice: as a field and within filter")
        where[column] = value
    if any(isinstance(value, list) and len(value) > _VALUES_MAX for value in where.values()):
        raise Problem("bad-filter", f"a filter takes at most {_VALUES_MAX} values")
    try:
        sql_condition(where)
    except BadInputError as error:
        raise Problem("bad-filter", str(error)) from None
    return where or None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise Problem("bad-filter", "filter names a column twice; give its values as a list")
    return values


def _parse_filter(text: str | None) -> dict[str, FilterValue]:
    if not text:
        return {}
    try:
        values = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError):
        raise Problem("bad-filter", 'filter must be a JSON object such as {"brand": ["Acme", null]}') from None
    if not isinstance(values, dict):
        raise Problem("bad-filter", f"filter must be a JSON object, got {type(values).__name__}")
    for column, value in values.items():
        items = value if isinstance(value, list) else [value]
        if not all(item is None or (isinstance(item, str) and "\0" not in item) for item in items):
            raise Problem(
                "bad-filter",
                f"the filter on {column[:60]!r} must be text, null or a list of them; "
                f"columns are {', '.join(FILTER_COLUMNS)}",
            )
    return values
