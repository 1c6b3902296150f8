"""What operations ask: `/health`, `/ready`, `/metrics`; and what a type of problem means."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from univert.serving.metrics import CONTENT_TYPE
from univert.serving.problems import KINDS, Problem, busy, documented
from univert.serving.schemas import StateAnswer
from univert.serving.service import service_of

router = APIRouter(tags=["operations"])


@router.get(
    "/health",
    summary="Whether the process is up",
    operation_id="health",
    responses={200: {"model": StateAnswer, "description": "Up"}},
)
async def health() -> JSONResponse:
    """Restart the process if this does not answer."""
    return JSONResponse({"status": "up"})


@router.get(
    "/ready",
    summary="Whether to send requests here",
    operation_id="ready",
    responses={200: {"model": StateAnswer, "description": "Ready"}, **documented("not-ready")},
)
async def ready(request: Request) -> JSONResponse:
    """Model and index are loaded, and the process is not stopping."""
    service = service_of(request)
    if not service.lifecycle.ready:
        state = "stopping" if service.lifecycle.draining else "starting"
        raise busy("not-ready", f"the service is {state}", service.settings.retry_after_s)
    return JSONResponse({"status": "ready"})


@router.get(
    "/metrics",
    summary="Counts, for Prometheus",
    operation_id="metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Exposition format"},
        **documented("unauthorised"),
    },
)
def metrics(request: Request) -> Response:
    """Over all worker processes."""
    service = service_of(request)
    service.measure()
    return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE})


@router.get(
    "/problems/{name}",
    summary="What a type of problem means",
    operation_id="problem",
    responses={200: {"description": "Explained"}, **documented("not-found")},
)
async def problem(name: str) -> JSONResponse:
    """Every error's `type` leads here."""
    if name not in KINDS:
        raise Problem("not-found", "there is no such type of problem")
    return JSONResponse({"type": f"/problems/{name}", **asdict(KINDS[name])})
