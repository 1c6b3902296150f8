"""Which pages from elsewhere may call the API (CORS): the browser's question beforehand, the mark on each answer."""

from __future__ import annotations

from typing import Any

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from univert.serving.settings import Settings


def cors_options(settings: Settings) -> dict[str, Any]:
    """What both layers are told."""
    return {
        "allow_origins": settings.cors_origins,
        "allow_methods": ["GET", "POST"],
        "allow_headers": ["X-API-Key", "Authorization", "X-Request-ID"],
        "expose_headers": ["X-Request-ID", "Retry-After"],
    }


class Preflights(CORSMiddleware):
    """Answers the browser's question whether it may call. Inside the gate, which counts and logs it as any request."""

    async def simple_response(self, scope: Scope, receive: Receive, send: Send, request_headers: Headers) -> None:
        """The calls themselves are `AllowedOrigins`' business."""
        await self.app(scope, receive, send)


class AllowedOrigins(CORSMiddleware):
    """Marks each answer with the origin that may read it. Around the gate: a page must be able to read refusals."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the application's own start and end."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if "origin" in headers and scope["method"] != "OPTIONS":
            await self.simple_response(scope, receive, send, request_headers=headers)
        else:
            await self.app(scope, receive, send)
