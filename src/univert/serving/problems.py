"""Errors of the service as RFC 9457 problem details: one type a cause, one shape for all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from univert.core.errors import BadInputError, did_you_mean

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 1
"""What a busy service tells clients to wait where it knows no better."""


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A type of problem: its HTTP status, what it is (always the same), and what the client can do."""

    status: int
    title: str
    advice: str


PROBLEM_TYPES: Final[Mapping[str, ProblemType]] = {
    "validation": ProblemType(422, "The request is not as documented", "Compare it with /openapi.json."),
    "bad-photo": ProblemType(400, "The photo cannot be used", "Send a still JPEG, PNG or WebP that opens elsewhere."),
    "bad-box": ProblemType(400, "The box cannot be used", "Give x0,y0,x1,y1 in pixels of the upright photo."),
    "bad-filter": ProblemType(400, "The filter cannot be used", "See /verticals for the values there are."),
    "no-words": ProblemType(
        400, "Words cannot be searched with here", "Search with a photo, or do what the detail says."
    ),
    "unauthorised": ProblemType(401, "An API key is needed", "Send a valid key as X-API-Key or as a Bearer token."),
    "forbidden": ProblemType(403, "Other websites may not do this", "Ask from a page of the service's own host."),
    "not-found": ProblemType(404, "There is nothing here", "Check the address or the id."),
    "method-not-allowed": ProblemType(405, "This method is not allowed here", "See the Allow header."),
    "slow-upload": ProblemType(408, "The upload took too long", "Send a smaller photo or use a faster connection."),
    "too-large": ProblemType(413, "The upload is too large", "Send a smaller photo."),
    "unsupported-type": ProblemType(415, "This type of content is not taken", "Send a JPEG, PNG or WebP photo."),
    "unknown-host": ProblemType(421, "This is not a name of the service", "Add the name to the setting allowed_hosts."),
    "rate-limited": ProblemType(429, "Too many requests", "Wait as long as Retry-After says."),
    "internal": ProblemType(500, "The service failed", "Report the request_id to whoever runs the service."),
    "overloaded": ProblemType(503, "The service is busy", "Wait as long as Retry-After says and try again."),
    "not-ready": ProblemType(
        503, "The service is starting or stopping", "Wait as long as Retry-After says and try again."
    ),
    "deadline": ProblemType(504, "The answer took too long", "Try again; if it stays so, ask for less."),
}
"""Every type of problem by name; its URI is `/problems/NAME`."""

GUARD_PROBLEMS: Final = ("validation", "unauthorised", "rate-limited", "overloaded", "not-ready")
"""What every guarded route may answer with."""

_ANYWHERE: Final = ("unknown-host", "internal")
_OF_THE_FRAMEWORK: Final = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}


class ProblemDetails(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="/problems/NAME; the address explains it.")
    title: str
    status: int
    detail: str = Field(description="What went wrong this time, and the fix.")
    instance: str = Field(description="The path that was asked.")
    request_id: str | None = Field(description="As in X-Request-ID and in the service's log.")


class Problem(HTTPException):
    """What the client is to be told, by the name of its type in `PROBLEM_TYPES`; raised anywhere below a route."""

    def __init__(self, name: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(PROBLEM_TYPES[name].status, detail, headers)
        self.name = name

    def __str__(self) -> str:
        return self.detail


def busy(name: str, detail: str, retry_after_s: int = RETRY_AFTER_S) -> Problem:
    """A problem that goes away by waiting: the answer carries Retry-After."""
    return Problem(name, detail, {"Retry-After": str(retry_after_s)})


def problem_response(problem: Problem, request: Request) -> JSONResponse:
    """The answer for a problem."""
    record = getattr(request.state, "record", None)
    if record is not None:
        record.problem = problem.name
    root = request.app.state.service.settings.root_path
    details = _details(problem, raw_path(request), getattr(record, "request_id", None), root)
    return JSONResponse(details, status_code=problem.status_code, headers=problem.headers, media_type=MEDIA_TYPE)


def _details(problem: Problem, path: str, request_id: str | None, root: str = "") -> dict[str, Any]:
    kind = PROBLEM_TYPES[problem.name]
    return ProblemDetails(
        type=f"{root}/problems/{problem.name}",
        title=kind.title,
        status=kind.status,
        detail=problem.detail,
        instance=root + path,
        request_id=request_id,
    ).model_dump()


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every error that reaches the application with problem details, the framework's own included."""

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        return problem_response(error if isinstance(error, Problem) else _of_framework(request, error), request)

    @app.exception_handler(RequestValidationError)
    async def not_as_documented(request: Request, error: RequestValidationError) -> JSONResponse:
        return problem_response(Problem("validation", _explained(error.errors()[0], request)), request)

    @app.exception_handler(BadInputError)
    async def bad_input(request: Request, error: BadInputError) -> JSONResponse:
        return problem_response(Problem("validation", str(error)), request)


def documented(*names: str) -> dict[int | str, dict[str, Any]]:
    """The problems that a route answers with, for its OpenAPI entry; those that any route may answer with included."""
    responses: dict[int | str, dict[str, Any]] = {}
    for name in (*names, *_ANYWHERE):
        kind = PROBLEM_TYPES[name]
        content = {MEDIA_TYPE: {"schema": ProblemDetails.model_json_schema(), "examples": {}}}
        entry = responses.setdefault(kind.status, {"description": kind.title, "content": content})
        if kind.status in (429, 503):
            entry["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
        example = _details(Problem(name, kind.advice), "/search", "4f0c2b7e9a514d54")
        entry["content"][MEDIA_TYPE]["examples"][name] = {"value": example}
    return responses


def _of_framework(request: Request, error: HTTPException) -> Problem:
    name = _OF_THE_FRAMEWORK.get(error.status_code, "internal" if error.status_code >= 500 else "validation")
    detail = {
        404: f"nothing at {raw_path(request)}",
        405: f"{request.method} is not allowed at {raw_path(request)}",
    }.get(error.status_code, f"the body cannot be read: {error.detail}")
    return Problem(name, detail, error.headers)


def _explained(error: Mapping[str, Any], request: Request) -> str:
    """One error of pydantic in a sentence; of an unknown name, which known one was probably meant."""
    where, *rest = (str(part) for part in error["loc"])
    name = " ".join(rest)[:60]
    thing = "parameter" if where == "query" else "field"
    if error["type"] == "extra_forbidden":
        known = list(_known_names(request, where))
        return f"unknown {thing} {name!r}; {did_you_mean(name, known) if known else 'this address takes none'}"
    if error["type"] == "missing":
        return f"{name or where} is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{name}: {message[:1].lower()}{message[1:]}" if name else message


def _known_names(request: Request, where: str) -> Iterable[str]:
    route = request.scope["route"]
    fields = route.dependant.query_params if where == "query" else [route.body_field]
    for field in fields:
        model = field.field_info.annotation
        yield from getattr(model, "model_fields", None) or [field.name]


def raw_path(request: Request) -> str:
    """The path as it was sent: only there does an id's own slash differ from one that separates."""
    raw: bytes = request.scope.get("raw_path") or quote(request.scope["path"]).encode()
    return raw.partition(b"?")[0].decode("ascii", "replace")
