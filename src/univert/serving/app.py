"""The application: settings in, an ASGI application out."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI

import univert
from univert.serving import item_routes, operation_routes, search_routes
from univert.serving.cross_origin import AllowedOrigins, Preflights, cors_options
from univert.serving.gate import Gate
from univert.serving.lifecycle import Lifecycle
from univert.serving.metrics import Metrics
from univert.serving.page_routes import page_router
from univert.serving.problems import install_problem_handlers
from univert.serving.rate_limits import FILE_VARIABLE, RateLimits
from univert.serving.schemas import ProblemDetails
from univert.serving.security import ApiKeys
from univert.serving.service import Service
from univert.serving.settings import Settings, load_settings

_KEY_SCHEMES = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}


def create_app(settings: Settings | None = None) -> FastAPI:
    """An application that serves visual search: `uvicorn --factory univert.serving.app:create_app`, or any ASGI server.

    Model and index are loaded when the server starts it; every error it answers with is problem details.

    Args:
        settings: None reads them from the environment, see `univert.serving.settings.load_settings`.

    Raises:
        BadInputError: the settings are incomplete or wrong.
    """
    settings = settings or load_settings()
    metrics, lifecycle, keys = Metrics(), Lifecycle(), ApiKeys(settings.api_keys)
    service = Service(settings, metrics, lifecycle)
    rates = _rates(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield
        if rates is not None:
            rates.close()

    app = FastAPI(
        title="Univert visual search",
        version=univert.__version__,
        summary="Send a photo: what it shows, and the indexed images nearest to it.",
        docs_url=None,  # both load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.service = service
    for router in (search_routes.router, item_routes.router, operation_routes.router):
        app.include_router(router)
    if settings.page:
        app.include_router(page_router())
    install_problem_handlers(app)
    _document(app, keys_needed=bool(keys))
    # What is added later is further out. The gate sees each request first; only a header for answers lies around it.
    if settings.cors_origins:
        app.add_middleware(Preflights, **cors_options(settings))
    app.add_middleware(Gate, settings=settings, metrics=metrics, lifecycle=lifecycle, keys=keys, rates=rates)
    if settings.cors_origins:
        app.add_middleware(AllowedOrigins, **cors_options(settings))
    return app


def _rates(settings: Settings) -> RateLimits | None:
    if settings.rate_per_s is None:
        return None
    shared = os.environ.get(FILE_VARIABLE)
    return RateLimits(settings.rate_per_s, settings.rate_burst, Path(shared) if shared else None)


def _document(app: FastAPI, *, keys_needed: bool) -> None:
    """Complete the OpenAPI document: the shape of problems, and the keys if there are any."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            components = document.setdefault("components", {})
            components.setdefault("schemas", {})["ProblemDetails"] = ProblemDetails.model_json_schema()
            if keys_needed:
                components["securitySchemes"] = _KEY_SCHEMES
                document["security"] = [{"key": []}, {"bearer": []}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
