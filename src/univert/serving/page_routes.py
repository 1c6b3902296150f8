"""The page and its files, out of memory: a fixed list, so that no path from a client ever reaches the disk."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final

from fastapi import APIRouter, Request, Response

from univert.serving.problems import Problem
from univert.serving.security import PAGE_POLICY

INDEX: Final = "index.html"

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PageFile:
    """A file of the page.

    Attributes:
        content: as it is.
        packed: compressed with gzip.
        media_type: what it is.
        tag: its ETag.
    """

    content: bytes
    packed: bytes
    media_type: str
    tag: str


def page_files() -> dict[str, PageFile]:
    """The files of the page by name."""
    files = {}
    for entry in resources.files("univert.serving").joinpath("page").iterdir():
        media_type = _TYPES.get("." + entry.name.rpartition(".")[2])
        if media_type is None or not entry.is_file():
            continue
        content = entry.read_bytes()
        files[entry.name] = PageFile(
            content=content,
            packed=gzip.compress(content, 9, mtime=0),
            media_type=media_type,
            tag=f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"',
        )
    return files


def page_router() -> APIRouter:
    """Routes for `/` and `/static/NAME`."""
    router = APIRouter(include_in_schema=False)
    files = page_files()

    @router.api_route("/", methods=["GET", "HEAD"])
    async def page(request: Request) -> Response:
        return _answer(files[INDEX], request)

    @router.api_route("/static/{name}", methods=["GET", "HEAD"])
    async def static(name: str, request: Request) -> Response:
        if name not in files or name == INDEX:
            raise Problem("not-found", "the page has no such file")
        return _answer(files[name], request)

    @router.api_route("/favicon.ico", methods=["GET", "HEAD"])
    async def icon(request: Request) -> Response:
        if "icon.svg" not in files:
            raise Problem("not-found", "the page has no icon")
        return _answer(files["icon.svg"], request)

    return router


def _answer(file: PageFile, request: Request) -> Response:
    headers = {
        "ETag": file.tag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": PAGE_POLICY,
        "Vary": "Accept-Encoding",
    }
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.packed, media_type=file.media_type, headers={**headers, "Content-Encoding": "gzip"})
    return Response(file.content, media_type=file.media_type, headers=headers)
