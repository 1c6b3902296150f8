"""The application: settings in, an ASGI application out."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

import univert
from univert.serving import detect, feedback, routes, search
from univert.serving.observability import Observed, log
from univert.serving.problems import install_problem_handlers
from univert.serving.service import Service
from univert.serving.settings import Settings, load_settings
from univert.serving.thumbnails import MEDIA_TYPE
from univert.serving.upkeep import running

PAGE: Final = Path(__file__).parent / "page"
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """An application that serves visual search, for any ASGI server.

    Model and index are loaded when the server starts it; every error it answers with is problem details.

    Args:
        settings: None reads them from the environment, see `univert.serving.settings.load_settings`.

    Raises:
        BadInputError: the settings are incomplete or wrong.
    """
    settings = settings or load_settings()
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with running(service):
            _drain_on_stop(service)
            yield

    app = FastAPI(
        title="Univert visual search",
        version=univert.__version__,
        summary="Send a photo: what it shows, and the indexed images nearest to it.",
        docs_url=None,  # both load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
    )
    app.state.service = service
    keys: list[Any] = []
    if settings.api_keys:  # for the OpenAPI document alone: the routes check them before they read a body
        keys = [Depends(APIKeyHeader(name="X-API-Key", auto_error=False)), Depends(HTTPBearer(auto_error=False))]
    for router in (search.routes, routes.thumbnails, routes.items):
        app.include_router(router, dependencies=keys)
    if settings.detector:
        app.include_router(detect.router, dependencies=keys)
    if settings.feedback:
        app.include_router(feedback.router, dependencies=keys)
    app.include_router(routes.operations)
    if settings.page:
        _serve_page(app)
    install_problem_handlers(app)
    # What is added later is further out.
    app.add_middleware(GZipMiddleware, compresslevel=5, exclude_content_types=(MEDIA_TYPE,))
    app.add_middleware(Observed, service=service)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["X-API-Key", "Authorization", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    return app


class PageFiles(StaticFiles):
    """The files of the page, which load nothing from elsewhere and are asked for anew each time they change."""

    def file_response(self, *given: Any, **options: Any) -> Response:
        """A file, with the policy of the page."""
        response = super().file_response(*given, **options)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["Content-Security-Policy"] = PAGE_POLICY
        return response


def _serve_page(app: FastAPI) -> None:
    files = PageFiles(directory=PAGE)
    app.mount("/static", files)

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon(request: Request) -> Response:
        return await files.get_response("icon.svg", request.scope)


def _drain_on_stop(service: Service) -> None:
    """On SIGTERM say at `/ready` that the service stops, serve on for `drain_s`, and only then stop.

    Connections that stay open between requests are the reason: a server that closes them at once loses the request
    that is on its way. While draining, each answer closes its connection in good order. SIGINT stops at once.
    """
    if not service.settings.drain_s or threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()

    def drain() -> None:
        if not service.draining:
            service.draining = True
            log(logging.INFO, "draining", seconds=service.settings.drain_s)
            loop.call_later(service.settings.drain_s, signal.raise_signal, signal.SIGINT)

    loop.add_signal_handler(signal.SIGTERM, drain)
