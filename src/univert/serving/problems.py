"""Errors of the service as RFC 9457 problem details: one type a cause, one shape for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Scope

from univert.core.errors import BadInputError

MEDIA_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A type of problem.

    Attributes:
        status: the HTTP status.
        title: what it is, the same for each occurrence.
        advice: what the client can do about it.
    """

    status: int
    title: str
    advice: str


KINDS: Final[Mapping[str, Kind]] = {
    "validation": Kind(status=422, title="The request is not as documented", advice="Compare it with /openapi.json."),
    "bad-photo": Kind(
        status=400, title="The photo cannot be used", advice="Send a still JPEG, PNG or WebP that opens elsewhere."
    ),
    "bad-box": Kind(
        status=400, title="The box cannot be used", advice="Give x0,y0,x1,y1 in pixels of the upright photo."
    ),
    "bad-filter": Kind(
        status=400, title="The filter cannot be used", advice="See /verticals for the values there are."
    ),
    "unauthorised": Kind(
        status=401, title="An API key is needed", advice="Send a valid key as X-API-Key or as a Bearer token."
    ),
    "not-found": Kind(status=404, title="There is nothing here", advice="Check the address or the id."),
    "method-not-allowed": Kind(status=405, title="This method is not allowed here", advice="See the Allow header."),
    "slow-upload": Kind(
        status=408, title="The upload took too long", advice="Send a smaller photo or use a faster connection."
    ),
    "length-required": Kind(
        status=411,
        title="The length of the body is missing",
        advice="Send a Content-Length, not the body in chunks (Transfer-Encoding).",
    ),
    "too-large": Kind(status=413, title="The upload is too large", advice="Send a smaller photo."),
    "unsupported-type": Kind(
        status=415, title="This type of content is not taken", advice="Send a JPEG, PNG or WebP photo."
    ),
    "rate-limited": Kind(status=429, title="Too many requests", advice="Wait as long as Retry-After says."),
    "internal": Kind(
        status=500, title="The service failed", advice="Report the request_id to whoever runs the service."
    ),
    "overloaded": Kind(
        status=503, title="The service is busy", advice="Wait as long as Retry-After says and try again."
    ),
    "not-ready": Kind(
        status=503,
        title="The service is starting or stopping",
        advice="Wait as long as Retry-After says and try again.",
    ),
    "deadline": Kind(status=504, title="The answer took too long", advice="Try again; if it stays so, ask for less."),
}
"""Every type of problem by name; its URI is `/problems/NAME`."""

_BY_STATUS: Final = {kind.status: name for name, kind in reversed([*KINDS.items()])}


class Problem(Exception):  # noqa: N818
    """What the client is to be told; raised anywhere below a route.

    Attributes:
        name: the type, a key of `KINDS`.
        detail: what went wrong this time, and the fix.
        headers: further headers of the answer.
    """

    def __init__(self, name: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.name = name
        self.detail = detail
        self.headers = dict(headers or {})


def busy(name: str, detail: str, retry_after_s: int) -> Problem:
    """A problem that goes away by waiting: the answer carries Retry-After."""
    return Problem(name, detail, {"Retry-After": str(retry_after_s)})


def problem_response(problem: Problem, scope: Scope) -> JSONResponse:
    """The answer for a problem.

    Args:
        problem: what happened.
        scope: the request's ASGI scope, for its path and id.
    """
    kind = KINDS[problem.name]
    record = scope.get("univert.record")
    if record is not None:
        record.problem = problem.name
    return JSONResponse(
        {
            "type": f"/problems/{problem.name}",
            "title": kind.title,
            "status": kind.status,
            "detail": problem.detail,
            "instance": _instance(scope),
            "request_id": getattr(record, "request_id", None),
        },
        status_code=kind.status,
        headers=problem.headers,
        media_type=MEDIA_TYPE,
    )


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every error that reaches the application with problem details, the framework's own included."""

    async def ours(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        return problem_response(error, request.scope)

    async def framework(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        name = _BY_STATUS.get(error.status_code, "internal" if error.status_code >= 500 else "validation")
        detail = {
            404: f"nothing at {_instance(request.scope)}",
            405: f"{request.method} is not allowed at {_instance(request.scope)}",
        }.get(error.status_code, str(error.detail))
        return problem_response(Problem(name, detail, error.headers), request.scope)

    async def validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = " ".join(str(part) for part in first["loc"])
        return problem_response(Problem("validation", f"{place}: {first['msg']}"), request.scope)

    async def bad_input(request: Request, error: Exception) -> JSONResponse:
        return problem_response(Problem("validation", str(error)), request.scope)

    app.add_exception_handler(Problem, ours)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(BadInputError, bad_input)


def documented(*names: str) -> dict[int | str, dict[str, Any]]:
    """The problems that a route answers with, for its OpenAPI entry."""
    responses: dict[int | str, dict[str, Any]] = {}
    for name in names:
        kind = KINDS[name]
        entry = responses.setdefault(
            kind.status,
            {
                "description": kind.title,
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}, "examples": {}}},
            },
        )
        if kind.status in (429, 503):
            entry["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
        entry["content"][MEDIA_TYPE]["examples"][name] = {
            "value": {
                "type": f"/problems/{name}",
                "title": kind.title,
                "status": kind.status,
                "detail": kind.advice,
                "instance": "/search",
                "request_id": "4f0c2b7e9a514d54",
            }
        }
    return responses


def _instance(scope: Scope) -> str:
    raw: bytes = scope.get("raw_path") or b""
    return raw.decode("ascii", "replace") or str(scope.get("path", "/"))
