"""What is in the index: `GET /verticals`, `GET /items/{id}` and its thumbnail."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated, Any, Final
from urllib.parse import quote, unquote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from univert.core.errors import BadInputError
from univert.search.index import Index
from univert.serving.gate import CHARGE, ITEMS, THUMBNAIL
from univert.serving.problems import Problem, documented
from univert.serving.queries import check_parameters
from univert.serving.schemas import ItemAnswer, VerticalsAnswer
from univert.serving.service import Service, record_of, service_of
from univert.serving.thumbnails import (
    MEDIA_TYPE,
    SIZE_PX_DEFAULT,
    SIZE_PX_MAX,
    SIZE_PX_MIN,
    PictureGoneError,
    render_tokens,
    rendered_size_px,
)

router = APIRouter(tags=["items"])

_VALUES_MAX: Final = 1000
_ID_MAX: Final = 1000
_CACHE_S: Final = 300

_PROBLEMS: Final = ("unauthorised", "rate-limited", "overloaded", "not-ready", "not-found", "validation")
_ID: Final = {
    "parameters": [
        {
            "name": "id",
            "in": "path",
            "required": True,
            "description": "The image's id; slashes in it percent-encoded.",
            "schema": {"type": "string", "minLength": 1},
            "example": "sneakers/0042.jpg",
        }
    ]
}


@router.get(
    "/verticals",
    summary="The values to filter by, most frequent first",
    operation_id="verticals",
    responses={
        200: {"model": VerticalsAnswer, "description": "Counted"},
        **documented("unauthorised", "rate-limited", "overloaded", "not-ready"),
    },
)
async def verticals(request: Request) -> JSONResponse:
    """At most 1,000 values of each column."""
    check_parameters(request.query_params)
    service = service_of(request)
    index = service.index(record_of(request))
    if service.counts is None or service.counts[0] != index.version:  # a version never changes
        service.counts = index.version, await asyncio.to_thread(_counts, index)
    return JSONResponse(
        {
            **service.counts[1],
            "images": len(index),
            "index_version": index.version,
            "model": service.loaded.engine.fingerprint,
        }
    )


@router.get(
    "/items/{id:path}/thumbnail",
    summary="A small picture of an indexed image",
    operation_id="thumbnail",
    response_class=Response,
    responses={
        200: {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}, "description": "A WebP"},
        304: {"description": "Not changed since the ETag in If-None-Match"},
        **documented(*_PROBLEMS),
    },
    openapi_extra=_ID,
)
async def thumbnail(
    request: Request,
    size_px: Annotated[
        int,
        Query(
            ge=SIZE_PX_MIN,
            le=SIZE_PX_MAX,
            description="The longer side; the picture may be the next larger of 128, 256, 512, 1024.",
        ),
    ] = SIZE_PX_DEFAULT,
) -> Response:
    """Rendered anew: whatever metadata the picture has stays in the index."""
    name, charge = _item_of(request), request.scope[CHARGE]
    check_parameters(request.query_params, ["size_px"])
    if name is None:  # the id itself ends in "/thumbnail": the slash came percent-encoded
        charge(1.0)
        return await item(request)
    service = service_of(request)
    index = service.index(record_of(request))
    size_px = rendered_size_px(size_px)
    tag = _tag(index, name, size_px)
    headers = {"ETag": tag, "Cache-Control": f"{_scope(service)}, max-age={_CACHE_S}"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    content = service.thumbnails.kept(index, name, size_px)
    if content is None:
        charge(render_tokens(size_px))
        try:
            content = await asyncio.to_thread(service.thumbnails.render, index, name, size_px)
        except (BadInputError, PictureGoneError):
            raise Problem("not-found", f"no picture of item {name[:200]!r} in the index") from None
    return Response(content, media_type=MEDIA_TYPE, headers=headers)


@router.get(
    "/items/{id:path}",
    summary="All that is known of an indexed image",
    operation_id="item",
    responses={200: {"model": ItemAnswer, "description": "Found"}, **documented(*_PROBLEMS)},
    openapi_extra=_ID,
)
async def item(request: Request) -> JSONResponse:
    """The image's columns in the index."""
    if not _raw(request).endswith(THUMBNAIL):
        check_parameters(request.query_params)
    name = unquote(_raw(request).removeprefix(ITEMS))
    service = service_of(request)
    index = service.index(record_of(request))
    row = await asyncio.to_thread(_row, index, name)
    if row is None:
        raise Problem("not-found", f"no item {name[:200]!r} in the index")
    address = f"{ITEMS}{quote(name, safe='')}"
    return JSONResponse({**row, "thumbnail": address + THUMBNAIL, "index_version": index.version})


def _raw(request: Request) -> str:
    """The path as it was sent: only there does an id's own slash differ from one that separates."""
    raw: bytes = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    return raw.partition(b"?")[0].decode("ascii", "replace")


def _item_of(request: Request) -> str | None:
    raw = _raw(request)
    return unquote(raw.removeprefix(ITEMS).removesuffix(THUMBNAIL)) if raw.endswith(THUMBNAIL) else None


def _row(index: Index, name: str) -> dict[str, Any] | None:
    if not name or len(name) > _ID_MAX or "\0" in name:
        return None
    try:
        return index.row(name)
    except BadInputError:  # not valid as a value of the column, so no item has it
        return None


def _counts(index: Index) -> dict[str, list[dict[str, Any]]]:
    columns = {"verticals": "vertical", "brands": "brand", "styles": "style", "sources": "source"}
    return {
        name: [{"name": value, "images": images} for value, images in index.distinct(column, _VALUES_MAX)]
        for name, column in columns.items()
    }


def _tag(index: Index, name: str, size_px: int) -> str:
    digest = hashlib.blake2b(f"{index.version} {size_px} {name}".encode("utf-8", "replace"), digest_size=12)
    return f'"{digest.hexdigest()}"'


def _scope(service: Service) -> str:
    return "private" if service.settings.api_keys else "public"
