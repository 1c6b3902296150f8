"""`POST /search` and `POST /embed`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from univert.serving.problems import Problem, documented
from univert.serving.queries import check_parameters, parse_embed, parse_search
from univert.serving.schemas import EMBED_BODY, SEARCH_BODY, SEARCH_EXAMPLE, EmbedAnswer, SearchAnswer
from univert.serving.service import record_of, service_of
from univert.serving.uploads import read_form

router = APIRouter(tags=["search"])

_UPLOAD_PROBLEMS = (
    "validation",
    "bad-photo",
    "bad-box",
    "unauthorised",
    "slow-upload",
    "length-required",
    "too-large",
    "unsupported-type",
    "rate-limited",
    "overloaded",
    "not-ready",
    "deadline",
)


@router.post(
    "/search",
    summary="What a photo, or a box in it, shows, and the indexed images nearest to it",
    operation_id="search",
    responses={
        200: {
            "model": SearchAnswer,
            "description": "Found",
            "content": {"application/json": {"example": SEARCH_EXAMPLE}},
        },
        **documented(*_UPLOAD_PROBLEMS, "bad-filter", "not-found"),
    },
    openapi_extra={"requestBody": SEARCH_BODY},
)
async def search(request: Request) -> JSONResponse:
    """Send a photo as multipart/form-data, or an item's id as `like`; narrow the answer by columns."""
    service, record = service_of(request), record_of(request)
    check_parameters(request.query_params)
    answering = service.loaded.answering
    async with read_form(request, service.upload_limits, service.memory, record) as form:
        query = parse_search(form.fields, has_photo=form.photo is not None)
        index = service.index(record)
        async with _deadline(service.settings.request_deadline_s):
            answer = await answering.search(index, form, query, record, answering.deadline())
    return JSONResponse(answer)


@router.post(
    "/embed",
    summary="The unit vector of a photo, or of a box in it",
    operation_id="embed",
    responses={200: {"model": EmbedAnswer, "description": "Embedded"}, **documented(*_UPLOAD_PROBLEMS)},
    openapi_extra={"requestBody": EMBED_BODY},
)
async def embed(request: Request) -> JSONResponse:
    """Vectors of the same model may be compared; squared distances between them go from 0 to 4."""
    service, record = service_of(request), record_of(request)
    check_parameters(request.query_params)
    loaded = service.loaded
    async with read_form(request, service.upload_limits, service.memory, record) as form:
        box = parse_embed(form.fields)
        if form.photo is None:
            raise Problem("validation", "photo is missing; send one")
        async with _deadline(service.settings.request_deadline_s):
            embedded = await loaded.answering.embed(form, box, record, loaded.answering.deadline())
    return JSONResponse(
        {"vector": embedded.vector.tolist(), "size": loaded.engine.size, "model": loaded.engine.fingerprint}
    )


@asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Problem("deadline", f"no answer within {seconds:g} s") from None
