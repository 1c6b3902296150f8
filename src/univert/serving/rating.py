"""The rating page: triplets out, people's answers in, on the server of `univert serve`."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import unicodedata
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote, unquote

from cachetools import LRUCache
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

import univert
from univert.core.errors import BadInputError
from univert.data.catalogue import Catalogue
from univert.data.ratings import RatedTriplet, Ratings
from univert.search.query import Picture
from univert.serving import routes
from univert.serving.app import PAGE, PageFiles
from univert.serving.limits import key_name
from univert.serving.observability import Counts, Observed
from univert.serving.problems import Problem, install_problem_handlers
from univert.serving.server import free_port, run_workers
from univert.serving.settings import KEY_LINE
from univert.serving.thumbnails import (
    CACHE_BYTES,
    MEDIA_TYPE,
    SIZE_PX_MAX,
    SIZE_PX_MIN,
    PictureGoneError,
    render_webp,
    rendered_size_px,
)

AHEAD: Final = 5
"""Triplets that a rater holds: the one in sight, and those whose pictures are loaded meanwhile."""
SETTINGS_VARIABLE: Final = "UNIVERT_RATING_SETTINGS"
_COOKIE: Final = "univert-rater"
_COOKIE_S: Final = 365 * 86_400
_BODY_BYTES: Final = 10_000
_PICTURE_S: Final = 3600


class RatingSettings(BaseModel):
    """What the rating page is told.

    Attributes:
        ratings: the file of ratings, see `univert.data.ratings.Ratings`.
        catalogue: with the pictures.
        keys: `name:sha256` lines as `univert key NAME` prints them; none: any name may rate.
        host: address to listen on.
        port: port to listen on; 0 takes any that is free.
        workers: worker processes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ratings: Path
    catalogue: Path
    keys: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    workers: int = Field(1, ge=1, le=256)

    idle_s: float = 15.0
    drain_s: float = 0.0
    shutdown_deadline_s: float = 10.0
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    root_path: str = ""


class RatingService:
    """What the routes work on; they find it in `request.app.state.service`. May be used from any thread."""

    def __init__(self, settings: RatingSettings) -> None:
        self.settings = settings
        self.metrics = Counts()
        self.draining = False
        self.ratings = Ratings(settings.ratings)
        self._catalogue = Catalogue.open(settings.catalogue)
        self._positions = {name: place for place, name in enumerate(self._catalogue.column("id").tolist())}
        self._kept: LRUCache[tuple[str, int], bytes] = LRUCache(CACHE_BYTES, getsizeof=len)
        self._lock = threading.Lock()

    def rater(self, word: str) -> str | None:
        """Who somebody is by the name or key that they give; None if that will not do."""
        if self.settings.keys:
            return key_name(self.settings.keys, {"x-api-key": word})
        name = unicodedata.normalize("NFC", word.strip())
        return name if 0 < len(name) <= 64 and name.isprintable() else None

    def picture(self, name: str, size_px: int) -> bytes:
        """A picture of the catalogue, as WebP.

        Raises:
            PictureGoneError: there is none.
        """
        with self._lock:
            found: bytes | None = self._kept.get((name, size_px))
        if found is not None:
            return found
        if name not in self._positions:
            raise PictureGoneError
        place = [self._positions[name]]
        try:
            (content,), (box,) = self._catalogue.image_bytes(place), self._catalogue.boxes(place)
        except BadInputError as error:  # a linked file is not where it was
            raise PictureGoneError(str(error)) from None
        rendered = render_webp(Picture(image=content, box_xyxy_px=box), size_px) or b""
        with self._lock:
            self._kept[name, size_px] = rendered
        return rendered


class _SmallBody(APIRoute):
    """A route that reads no body but a short one."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As FastAPI's, after a look at the headers."""
        handler = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            if int(request.headers.get("content-length") or 0) > _BODY_BYTES or "transfer-encoding" in request.headers:
                raise Problem("too-large", f"at most {_BODY_BYTES:,} bytes, with their Content-Length")
            return await handler(request)

        return guarded


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Entry(_Body):
    """Who wants to rate: a name or, where keys are asked for, a key."""

    rater: str = Field(max_length=200)


class Said(_Body):
    """What a rater says of a triplet."""

    triplet: int
    same: Literal["yes", "no", "unsure"]
    different: Literal["yes", "no", "unsure"]
    seconds: float | None = Field(None, ge=0, le=1e6)


class Session(BaseModel):
    """Who is rating, None before they said; and whether they are asked for a key."""

    rater: str | None
    by_key: bool


class Work(BaseModel):
    """A rater's next triplets, and how far the work is; `undone` is the triplet whose answer was taken back."""

    triplets: list[dict[str, Any]]
    progress: dict[str, int]
    undone: int | None = None


router: Final = APIRouter(route_class=_SmallBody)


def _service(request: Request) -> RatingService:
    service: RatingService = request.app.state.service
    return service


def _rater(request: Request) -> str:
    name = _session(request).rater
    if name is None:
        raise Problem("unauthorised", "say who you are first: POST /session")
    return name


Service = Annotated[RatingService, Depends(_service)]
Rater = Annotated[str, Depends(_rater)]


def _session(request: Request) -> Session:
    service = _service(request)
    given = request.cookies.get(_COOKIE)
    name = service.rater(unquote(given)) if given else None
    return Session(rater=name, by_key=bool(service.settings.keys))


@router.get("/session")
def session(request: Request) -> Session:
    """Who is rating."""
    return _session(request)


@router.post("/session")
def enter(request: Request, response: Response, service: Service, entry: Entry) -> Session:
    """Begin to rate. The cookie is sent with pictures, too, and never with what another website asks for."""
    name = service.rater(entry.rater)
    if name is None:
        said = "that key is not accepted" if service.settings.keys else "give a name of 1 to 64 characters"
        raise Problem("unauthorised", said)
    secure = request.url.scheme == "https"
    word = quote(entry.rater.strip(), safe="")
    response.set_cookie(_COOKIE, word, max_age=_COOKIE_S, httponly=True, samesite="strict", secure=secure)
    return Session(rater=name, by_key=bool(service.settings.keys))


@router.delete("/session")
def leave(response: Response, service: Service) -> Session:
    """Stop rating in this browser."""
    response.delete_cookie(_COOKIE, httponly=True, samesite="strict")
    return Session(rater=None, by_key=bool(service.settings.keys))


@router.get("/triplets")
def triplets(service: Service, rater: Rater) -> Work:
    """The next triplets; the same again until they are answered."""
    return _work(service.ratings, rater)


@router.post("/answers")
def answers(service: Service, rater: Rater, said: Said) -> Work:
    """An answer is on the disk when this returns. Sent again, it counts once."""
    service.ratings.answer(rater, said.triplet, (said.same, said.different), said.seconds)
    return _work(service.ratings, rater)


@router.post("/undo")
def undo(service: Service, rater: Rater) -> Work:
    """Take the last answer back; its triplet comes first."""
    return _work(service.ratings, rater, service.ratings.undo(rater))


@router.get("/pictures", response_class=Response)
def pictures(
    service: Service,
    rater: Rater,
    name: Annotated[str, Query(alias="id")],
    size_px: Annotated[int, Query(ge=SIZE_PX_MIN, le=SIZE_PX_MAX)] = 512,
) -> Response:
    """A picture of the catalogue."""
    try:
        content = service.picture(name, rendered_size_px(size_px))
    except PictureGoneError:
        raise Problem("not-found", f"no picture of {name[:200]!r} in the catalogue") from None
    return Response(content, media_type=MEDIA_TYPE, headers={"Cache-Control": f"private, max-age={_PICTURE_S}"})


router.add_api_route("/problems/{name}", routes.problem)


def _work(ratings: Ratings, rater: str, first: RatedTriplet | None = None) -> Work:
    held = sorted(ratings.lease(rater, AHEAD), key=lambda one: first is None or one.id != first.id)
    shown = ("id", "anchor", "positive", "negative", "vertical")  # and not what is known of a gold question
    return Work(
        triplets=[{name: getattr(triplet, name) for name in shown} for triplet in held],
        progress=asdict(ratings.progress(rater)),
        undone=None if first is None else first.id,
    )


def create_rating_app(settings: RatingSettings) -> FastAPI:
    """An application that serves the rating page, for any ASGI server.

    Raises:
        BadInputError: the ratings or the catalogue cannot be opened.
    """
    service = RatingService(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.ratings.close()

    app = FastAPI(
        title="Univert rating", version=univert.__version__, docs_url=None, redoc_url=None, lifespan=lifespan,
        redirect_slashes=False,
    )  # fmt: skip
    app.state.service = service
    app.include_router(router)
    files = PageFiles(directory=PAGE)
    app.mount("/static", files)

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return await files.get_response("rate.html", request.scope)

    install_problem_handlers(app)
    app.add_middleware(GZipMiddleware, compresslevel=5, exclude_content_types=(MEDIA_TYPE,))
    app.add_middleware(Observed, service=service)
    return app


def worker_app() -> FastAPI:
    """What a worker serves."""
    return create_rating_app(RatingSettings.model_validate_json(os.environ[SETTINGS_VARIABLE]))


def run_rating_server(settings: RatingSettings) -> None:
    """Serve the rating page until told to stop.

    Raises:
        BadInputError: the host can never be listened on, or the ratings or the catalogue cannot be opened.
        UnivertError: the port is in use, or workers end again and again.
    """
    Ratings(settings.ratings).close()
    multiprocessing.set_start_method("spawn", force=True)  # threads of the libraries do not survive a fork
    port = free_port(settings.host, settings.port)
    os.environ[SETTINGS_VARIABLE] = json.dumps(settings.model_dump(mode="json"))
    run_workers("univert.serving.rating:worker_app", settings, port)


def read_keys(path: Path) -> tuple[str, ...]:
    """The lines of a file that `univert key NAME` printed; empty ones and comments left out.

    Raises:
        BadInputError: the file cannot be read, has no key, or a line is something else.
    """
    try:
        lines = [line.strip().strip('",') for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path}: not a readable file of keys: {error}") from None
    keys = [line for line in lines if line and not line.startswith("#")]
    names = [line.partition(":")[0] for line in keys]
    for number, line in enumerate(keys, start=1):
        if not KEY_LINE.fullmatch(line):
            raise BadInputError(f"{path}: key {number} is not a line that `univert key NAME` printed: name:sha256")
    if not keys or len(set(names)) < len(names):
        raise BadInputError(f"{path}: {'two keys have the same name' if keys else 'there is no key in it'}")
    return tuple(keys)
