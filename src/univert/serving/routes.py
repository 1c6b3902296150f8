"""The routes that take no photo: items, their thumbnails, the values to filter by, and what operations ask."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import asdict
from typing import Annotated, Any, Final
from urllib.parse import unquote

from fastapi import APIRouter, Depends, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import Field

from univert.core.errors import BadInputError
from univert.search.index import Index
from univert.serving.answers import ItemAnswer, ProblemAnswer, StateAnswer, VerticalsAnswer
from univert.serving.limits import GuardedRoute, NoParameters, SelfChargingRoute, no_parameters
from univert.serving.observability import log
from univert.serving.problems import GUARD_PROBLEMS, PROBLEM_TYPES, Problem, busy, documented, raw_path
from univert.serving.search import ITEMS, THUMBNAIL, item_address
from univert.serving.service import record_of, service_of
from univert.serving.settings import filled_in
from univert.serving.thumbnails import (
    MEDIA_TYPE,
    SIZE_PX_DEFAULT,
    SIZE_PX_MAX,
    SIZE_PX_MIN,
    PictureGoneError,
    render_tokens,
    rendered_size_px,
)

_VALUES_MAX: Final = 1000
_CACHE_S: Final = 300
_ID_PARAMETER: Final = {
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


class ThumbnailParameters(NoParameters):
    """The parameters in the address of a thumbnail."""

    size_px: int = Field(
        default=SIZE_PX_DEFAULT,
        ge=SIZE_PX_MIN,
        le=SIZE_PX_MAX,
        description="The longer side; the picture may be the next larger of 128, 256, 512, 1024.",
    )


async def checked_key(request: Request) -> None:
    """A dependency of a route that needs a key and counts towards nothing."""
    service_of(request).limits.check_key(request)


items = APIRouter(tags=["items"], route_class=GuardedRoute, dependencies=[Depends(no_parameters)])
thumbnails = APIRouter(tags=["items"], route_class=SelfChargingRoute)
operations = APIRouter(tags=["operations"])


@items.get(
    "/verticals",
    summary="The values to filter by, most frequent first",
    operation_id="verticals",
    responses={200: {"description": "Counted"}, **documented(*GUARD_PROBLEMS)},
)
async def verticals(request: Request) -> VerticalsAnswer:
    """At most 1,000 values of each column."""
    service = service_of(request)
    index = service.index(record_of(request))
    counts: Any = await asyncio.to_thread(_counts, index)
    return VerticalsAnswer(
        **counts,
        images=len(index),
        index_version=index.version,
        model=service.loaded.engine.fingerprint,
        feedback=service.settings.feedback is not None,
        text=service.loaded.takes_text(),
    )


@thumbnails.get(
    "/items/{id:path}/thumbnail",
    summary="A small picture of an indexed image",
    operation_id="thumbnail",
    response_class=Response,
    responses={
        200: {"content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}, "description": "A WebP"},
        304: {"description": "Not changed since the ETag in If-None-Match"},
        **documented(*GUARD_PROBLEMS, "not-found", "deadline"),
    },
    openapi_extra=_ID_PARAMETER,
)
async def thumbnail(request: Request, parameters: Annotated[ThumbnailParameters, Query()]) -> Response:
    """Rendered anew: whatever metadata the picture has stays in the index."""
    service, path = service_of(request), raw_path(request)
    # A page of results asks for all of its thumbnails, most of which are kept: only the others cost.
    if not path.endswith(THUMBNAIL):  # the id itself ends in "/thumbnail": the slash came percent-encoded
        service.limits.charge(request, 1.0)
        return Response((await _item(request)).model_dump_json(), media_type="application/json")
    index, size_px = service.index(record_of(request)), rendered_size_px(parameters.size_px)
    name = unquote(path.removeprefix(ITEMS).removesuffix(THUMBNAIL))
    tag = hashlib.blake2b(f"{index.identity} {size_px} {name}".encode("utf-8", "replace"), digest_size=12)
    scope = "private" if service.settings.api_keys else "public"
    headers = {"ETag": f'"{tag.hexdigest()}"', "Cache-Control": f"{scope}, max-age={_CACHE_S}"}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    content = service.thumbnails.kept(index, name, size_px)
    if content is None:
        service.limits.charge(request, render_tokens(size_px))
        try:
            content = await service.loaded.thumbnail(service.thumbnails, index, name, size_px)
        except (BadInputError, PictureGoneError):
            raise Problem("not-found", f"no picture of item {name[:200]!r} in the index") from None
        except OSError as error:
            log(logging.ERROR, "the index cannot be read", reason=str(error))
            raise busy("not-ready", "the index cannot be read just now; the log says why") from None
    return Response(content, media_type=MEDIA_TYPE, headers=headers)


@items.get(
    "/items/{id:path}",
    summary="All that is known of an indexed image",
    operation_id="item",
    responses={200: {"description": "Found"}, **documented(*GUARD_PROBLEMS, "not-found")},
    openapi_extra=_ID_PARAMETER,
)
async def item(request: Request) -> ItemAnswer:
    """The image's columns in the index."""
    return await _item(request)


@operations.get(
    "/health",
    summary="Whether the process is up",
    operation_id="health",
    responses={200: {"description": "Up"}, **documented()},
)
async def health() -> StateAnswer:
    """Restart the process if this does not answer."""
    return StateAnswer(status="up")


@operations.get(
    "/ready",
    summary="Whether to send requests here",
    operation_id="ready",
    responses={200: {"description": "Ready"}, **documented("not-ready")},
)
async def ready(request: Request) -> StateAnswer:
    """Model and index are loaded, and the process is not stopping."""
    if service_of(request).draining:
        raise busy("not-ready", "the service is stopping")
    service_of(request).loaded  # noqa: B018 - or it is not ready
    return StateAnswer(status="ready")


@operations.get(
    "/metrics",
    summary="Counts, for Prometheus",
    operation_id="metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Exposition format"},
        **documented("unauthorised"),
    },
    dependencies=[Depends(checked_key)],
)
def metrics(request: Request) -> Response:
    """Over all worker processes."""
    service = service_of(request)
    service.measure()
    return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})


@operations.get(
    "/problems/{name}",
    summary="What a type of problem means",
    operation_id="problem",
    responses={200: {"description": "Explained"}, **documented("not-found")},
)
async def problem(request: Request, name: str) -> ProblemAnswer:
    """Every error's `type` leads here."""
    if name not in PROBLEM_TYPES:
        raise Problem("not-found", "there is no such type of problem")
    return ProblemAnswer(
        type=f"{service_of(request).settings.root_path}/problems/{name}", **asdict(PROBLEM_TYPES[name])
    )


async def _item(request: Request) -> ItemAnswer:
    name = unquote(raw_path(request).removeprefix(ITEMS))
    service = service_of(request)
    index = service.index(record_of(request))
    row = await indexed_row(index, name)
    return ItemAnswer(
        **row,
        thumbnail=service.settings.root_path + item_address(name) + THUMBNAIL,
        link=filled_in(service.settings.item_link, row),
        index_version=index.version,
    )


async def indexed_row(index: Index, name: str) -> dict[str, Any]:
    """The columns of an item, or the problem `not-found`."""
    row = await asyncio.to_thread(index.row, name)
    if row is None:
        raise Problem("not-found", f"no item {name[:200]!r} in the index")
    return row


def _counts(index: Index) -> dict[str, list[dict[str, Any]]]:
    """How often the values of the filters occur in a version, which never changes."""
    columns = {"verticals": "vertical", "brands": "brand", "styles": "style", "sources": "source"}
    return {
        name: [{"name": value, "images": images} for value, images in index.distinct(column, _VALUES_MAX)]
        for name, column in columns.items()
    }
