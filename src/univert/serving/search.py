"""`POST /search` and `POST /embed`: what a client may ask, checked field by field, and the routes."""

from __future__ import annotations

import asyncio
import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Request, UploadFile
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from univert.core.errors import BadInputError, did_you_mean
from univert.data.decode import BoxXyxyPx
from univert.identity.vote import Calibration
from univert.search.index import Index
from univert.search.query import FILTER_COLUMNS, FilterValue, Hit, check_where
from univert.serving.answers import EmbedAnswer, SearchAnswer
from univert.serving.limits import REPEATED_FIELDS, GuardedRoute, no_parameters
from univert.serving.problems import GUARD_PROBLEMS, Problem, documented
from univert.serving.service import record_of, service_of

K_DEFAULT: Final = 24
K_MAX: Final = 100
ITEMS_DEFAULT: Final = 12
ITEMS_MAX: Final = 24

FORM_LIMITS: Final[Any] = {"max_files": 1, "max_fields": 200, "max_part_size": 16_384}

ITEMS: Final = "/items/"
THUMBNAIL: Final = "/thumbnail"
"""An item's address is the first and its id; its thumbnail's ends in the second."""

_MULTIPART: Final = "multipart/form-data"
_VALUES_MAX: Final = 100
_NEAR_MAX: Final = 1_000
"""Of the values of a column, the most frequent are compared with one that is unknown: each takes 20 microseconds."""
_ID_MAX: Final = 1000
TEXT_MAX: Final = 200
_NUMBER: Final = re.compile(r" *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)? *")
"""Of a box: what `float` takes besides, such as 1_0, is more often a slip."""
_BOX_PATTERN: Final = r"^\d{1,5}(\.\d{1,3})?(,\d{1,5}(\.\d{1,3})?){3}$"
UPLOAD_PROBLEMS: Final = (
    *GUARD_PROBLEMS,
    "bad-photo",
    "bad-box",
    "slow-upload",
    "too-large",
    "unsupported-type",
    "deadline",
)

routes = APIRouter(tags=["search"], route_class=GuardedRoute, dependencies=[Depends(no_parameters)])


def parse_box(text: str) -> BoxXyxyPx:
    """A box from its text, `x0,y0,x1,y1`; `bad-box` for what are not four finite numbers, or no area."""
    parts = text.split(",") if len(text) <= 200 else []
    numbers = [float(part) for part in parts if _NUMBER.fullmatch(part)]
    if len(parts) != 4 or len(numbers) != 4 or not all(math.isfinite(number) for number in numbers):
        raise Problem("bad-box", f"box must be four numbers x0,y0,x1,y1, got {text[:60]!r}")
    x0, y0, x1, y1 = numbers
    if not (x0 < x1 and y0 < y1):
        raise Problem("bad-box", f"box must have x0 < x1 and y0 < y1, got {text[:60]!r}")
    return x0, y0, x1, y1


def item_address(item: str) -> str:
    """Where all that is known of an item is to be had; slashes in its id are percent-encoded."""
    return f"{ITEMS}{quote(item, safe='')}"


def _whole_number(least: int, most: int) -> BeforeValidator:
    def check(value: Any) -> Any:
        if isinstance(value, str) and not (value.isascii() and value.isdigit() and len(value) <= 9):
            raise ValueError(f"must be a whole number from {least} to {most}, got {value[:60]!r}")
        return value

    return BeforeValidator(check)


def _checked_box(text: str) -> str:
    parse_box(text)
    return text


def _values(what: str, example: str) -> Any:
    """A field that narrows a search to some values of a column."""
    return Field(
        default=[],
        max_length=_VALUES_MAX,
        description=f"Only images of {what}; repeated for several.",
        examples=[[example]],
    )


Names = list[Annotated[str, StringConstraints(max_length=_ID_MAX)]]
Photo = Annotated[
    UploadFile, Field(description="A still JPEG, PNG or WebP. Its content decides, not its name or declared type.")
]
Box = Annotated[
    str,
    AfterValidator(_checked_box),
    Field(
        description="x0,y0,x1,y1 in pixels of the upright photo; what reaches outside is cut off.",
        examples=["40,60,420,500"],
        json_schema_extra={"pattern": _BOX_PATTERN},
    ),
]


class BoxForm(BaseModel, extra="forbid"):
    """What the forms have in common."""

    box: Box | SkipJsonSchema[None] = None

    @property
    def box_xyxy_px(self) -> BoxXyxyPx | None:
        """The item within the upright photo; None for the whole photo."""
        return None if self.box is None else parse_box(self.box)


class EmbedForm(BoxForm):
    """The form of `POST /embed`."""

    photo: Photo


class SearchForm(BoxForm):
    """The form of `POST /search`: a photo, an item or words, and what narrows the answer."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": [name]} for name in ("photo", "like", "text")],
            "not": {"anyOf": [{"required": ["like", name]} for name in ("photo", "text")]},
        }
    )

    photo: Photo | SkipJsonSchema[None] = None
    like: str | SkipJsonSchema[None] = Field(
        default=None,
        min_length=1,
        description="The id of an item to search with, instead of a photo.",
        examples=["sneakers/0042.jpg"],
    )
    text: str | SkipJsonSchema[None] = Field(
        default=None,
        description="Words to search with, alone or with a photo, where the index knows the names of its products.",
        examples=["blue armchair"],
        json_schema_extra={"minLength": 1, "maxLength": TEXT_MAX},
    )
    k: Annotated[int, _whole_number(1, K_MAX)] = Field(
        default=K_DEFAULT, ge=1, le=K_MAX, description="How many hits, of the photo and of each item.", examples=[24]
    )
    items: Annotated[int, _whole_number(0, ITEMS_MAX)] = Field(
        default=ITEMS_DEFAULT,
        ge=0,
        le=ITEMS_MAX,
        description="How many items of the photo are answered at most, the surest; 0 looks for none.",
        examples=[12],
    )
    vertical: Names = _values("these verticals", "shoes")
    brand: Names = _values("these brands", "Acme")
    style: Names = _values("these styles", "sneaker")
    source: Names = _values("these sources", "studio")
    filter: str | SkipJsonSchema[None] = Field(
        default=None,
        description="A JSON object: column to a value, null (empty) or a list of them.",
        examples=['{"split": "test", "product": ["a-17", null]}'],
        json_schema_extra={"contentMediaType": "application/json"},
    )

    @field_validator("text")
    @classmethod
    def _check_text(cls, text: str | None) -> str | None:
        if text is not None and len(text) > TEXT_MAX:
            raise ValueError(f"must have at most {TEXT_MAX} characters, got {len(text)}")
        if text is not None and not any(map(str.isalnum, text)):
            raise ValueError("must have a word in it")
        return text and text.strip()

    @model_validator(mode="after")
    def _check_together(self) -> SearchForm:
        given = [name for name in ("photo", "text") if getattr(self, name) is not None]
        if given and self.like is not None:
            raise ValueError(f"give either {given[0]} or like, not both")
        if not given and self.like is None:
            raise ValueError("photo is missing; send one, an item's id as like, or words as text")
        if self.box is not None and self.photo is None:
            raise ValueError("box belongs to a photo; leave it out without one")
        return self

    def where(self) -> dict[str, list[str | None]] | None:
        """The filters by column, or the problem `bad-filter`; None without any."""
        where: dict[str, FilterValue] = {}
        for name in REPEATED_FIELDS:
            if values := [value for value in getattr(self, name) if value]:
                where[name] = values
        for column, value in _parse_filter(self.filter).items():
            if column in where:
                raise Problem("bad-filter", f"{column} is filtered twice: as a field and within filter")
            if isinstance(value, list) and len(value) > _VALUES_MAX:
                raise Problem("bad-filter", f"a filter takes at most {_VALUES_MAX} values")
            where[column] = value
        if not where:
            return None
        try:
            return check_where(where)
        except BadInputError as error:
            raise Problem("bad-filter", str(error)) from None


@routes.post(
    "/search",
    summary="What a photo, or a box in it, shows, and the indexed images nearest to it; or those that words find",
    operation_id="search",
    responses={200: {"description": "Found"}, **documented(*UPLOAD_PROBLEMS, "bad-filter", "no-words", "not-found")},
    form_limits=FORM_LIMITS,
)
async def search(request: Request, form: Annotated[SearchForm, Form(media_type=_MULTIPART)]) -> SearchAnswer:
    """Send a photo as multipart/form-data, an item's id as `like`, or words as `text`; narrow the answer by columns.

    Words may come with a photo: "this, but in red".
    Without a box, each item found in the photo is answered, too, where the service has a detector.
    """
    service, record = service_of(request), record_of(request)
    index, where = service.index(record), form.where()
    found_by = await asyncio.to_thread(_known_forms, where, index) if where else None
    if form.photo is not None:
        await request.state.upload.take(form.photo)
    if form.text is not None:
        answer: Any = await service.loaded.search_text(
            index,
            form.text,
            request.state.upload if form.photo is not None else None,
            k=form.k,
            where=found_by,
            box_xyxy_px=form.box_xyxy_px,
            record=record,
        )
    else:
        answer = await service.loaded.search(
            index,
            request.state.upload if form.like is None else form.like,
            k=form.k,
            where=found_by,
            box_xyxy_px=form.box_xyxy_px,
            items_max=form.items,
            record=record,
        )
    calibration = service.loaded.calibration if form.text is None else None
    for part in (answer, *answer["items"]):
        part["hits"] = [_hit_values(hit, calibration, service.settings.root_path) for hit in part["hits"]]
    return answer  # type: ignore[no-any-return]  # checked by the framework


@routes.post(
    "/embed",
    summary="The unit vector of a photo, or of a box in it",
    operation_id="embed",
    responses={200: {"description": "Embedded"}, **documented(*UPLOAD_PROBLEMS)},
    form_limits=FORM_LIMITS,
)
async def embed(request: Request, form: Annotated[EmbedForm, Form(media_type=_MULTIPART)]) -> EmbedAnswer:
    """Vectors of the same model may be compared; squared distances between them go from 0 to 4."""
    loaded = service_of(request).loaded
    await request.state.upload.take(form.photo)
    _, (vector,) = await loaded.embed(request.state.upload, form.box_xyxy_px, record_of(request))
    return EmbedAnswer(vector=vector.tolist(), size=loaded.engine.size, model=loaded.engine.fingerprint)


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


def _known_forms(where: Mapping[str, Sequence[str | None]], index: Index) -> dict[str, FilterValue]:
    """Filters that find a text whichever way its accents are encoded, in the question and in the index.

    A value that no image has is a `bad-filter`: a slip must not look like "nothing found".
    """
    found: dict[str, FilterValue] = {}
    for column, given in where.items():
        texts = [text for text in given if text is not None]
        forms = [{text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))} for text in texts]
        asked = sorted(set().union(*forms))
        known = asked if column == "id" else index.known(column, asked)
        for text, alike in zip(texts, forms, strict=True):
            if alike.isdisjoint(known):
                names = sorted({unicodedata.normalize("NFC", name) for name, _ in index.distinct(column, _NEAR_MAX)})
                hint = did_you_mean(text, names) if names else f"no image in it has a {column}"
                raise Problem("bad-filter", f"no {column} {text[:200]!r} in the index; {hint}")
        found[column] = [*known, None] if None in given else list(known)
    return found


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise Problem("bad-filter", "filter names a column twice; give its values as a list")
    return values


def _hit_values(hit: Hit, calibration: Calibration | None, root_path: str) -> dict[str, Any]:
    """A hit as a `HitAnswer` has it."""
    address = root_path + item_address(hit.id)
    similarity = calibration.similarity(hit.distance) if calibration else None
    return asdict(hit) | {"similarity": similarity, "thumbnail": address + THUMBNAIL, "item": address}
