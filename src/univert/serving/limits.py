"""Who may ask, how often, how many at once, and how much they may upload: decided before a body is read."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import math
import os
import secrets
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import Query, Request, Response, UploadFile
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Message

from univert.serving.observability import RequestRecord
from univert.serving.problems import Problem, busy
from univert.serving.settings import RATE_FILE_VARIABLE, Settings
from univert.serving.shared import RateLimits

_KEY_BYTES: Final = 32
_UPLOADS_AN_ADDRESS: Final = 64
_SILENT_S: Final = 0.5
"""Uploads under way from one address; where there are more, those that were silent longest are given up."""
REPEATED_FIELDS: Final = ("vertical", "brand", "style", "source")
"""Fields of a form that may come several times, each with a value of its own."""
_FORM_BYTES: Final = 128_000
"""What the fields and the parts' headers may take besides the photo."""
_DISCARDED_BYTES: Final = 64_000_000
_DISCARD_S: Final = 2.0


def new_key(name: str) -> tuple[str, str]:
    """A new API key, to be handed over once, and the line `name:sha256` for the settings.

    256 random bits cannot be guessed, so a plain hash protects them.
    """
    key = secrets.token_urlsafe(_KEY_BYTES)
    return key, f"{name}:{_digest(key)}"


def key_name(lines: Sequence[str], headers: Mapping[str, str]) -> str | None:
    """The name of the key that a request carries; None if it carries none of those in `lines`, each `name:sha256`.

    Every key is compared, and each in constant time, so that time tells nothing about them.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    digest = _digest(headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else ""))
    pairs = (line.split(":", 1) for line in lines)
    return next((name for name, same in [(n, hmac.compare_digest(digest, hash_)) for n, hash_ in pairs] if same), None)


def client_network(address: str) -> str:
    """Whom an address belongs to: an IPv4 address to itself, an IPv6 address to its /64, all of it.

    Examples:
        >>> client_network("203.0.113.7"), client_network("2001:db8::17"), client_network("::ffff:203.0.113.7")
        ('203.0.113.7', '2001:db8::/64', '203.0.113.7')
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), 64), strict=False))


class Limits:
    """The limits of one worker."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.held_bytes: Counter[str] = Counter()
        """Bytes of uploads by the address that they came from."""
        self.requests = 0
        """Those that are wholly here and not answered."""
        self.uploads: dict[str, set[Upload]] = {}
        """Those under way, by the address that they come from."""
        self.rates: RateLimits | None = None
        if settings.rate_per_s is not None:
            shared = os.environ.get(RATE_FILE_VARIABLE)
            self.rates = RateLimits(settings.rate_per_s, settings.rate_burst, Path(shared) if shared else None)

    def close(self) -> None:
        """Let go of what the workers share."""
        if self.rates is not None:
            self.rates.close()

    def check_key(self, request: Request) -> None:
        """Note the key that a request came with, or raise `unauthorised`."""
        if not self.settings.api_keys:
            return
        request.state.record.key_name = key_name(self.settings.api_keys, request.headers)
        if request.state.record.key_name is None:
            said = "no API key, or one that is not accepted; send X-API-Key"
            raise Problem("unauthorised", said, {"WWW-Authenticate": "Bearer"})

    def charge(self, request: Request, tokens: float) -> None:
        """Count so many tokens towards the rate of a request's client, or raise `rate-limited`."""
        client = request.state.record.key_name or _address(request)
        wait_s = self.rates.take(client, tokens) if self.rates is not None else 0.0
        if wait_s:
            detail = f"over {self.settings.rate_per_s:g} requests a second"
            raise busy("rate-limited", detail, max(1, math.ceil(wait_s)))


class Upload:
    """A request and its body as it arrives: counted, timed, and held in memory within the budget of its worker.

    It counts towards `requests_at_once` from its last byte on: who sends slowly must not keep out those who are
    ready. Until then it counts towards the uploads of its address.
    """

    def __init__(self, limits: Limits, request: Request) -> None:
        self.photo: bytes | None = None
        """The content of the file part; None before it was read and after it was decoded."""
        self._limits = limits
        self._receive = request.receive
        self._record: RequestRecord = request.state.record
        self._headers = request.headers
        declared = self._headers.get("content-length", "")
        self._expected_bytes = int(declared) if declared.isdigit() and len(declared) < 20 else 0
        self._held_bytes = 0
        self._complete = self._counted = self._given_up = False
        self._address = _address(request)
        self._heard_s = asyncio.get_running_loop().time()
        self._deadline_s = self._heard_s + limits.settings.body_deadline_s
        self._waiting: asyncio.Timeout | None = None

    async def receive(self) -> Message:
        """The next message; beyond the limits `too-large`, `slow-upload` or `overloaded`."""
        if self._complete:
            return await self._receive()
        settings = self._limits.settings
        bytes_max = settings.photo_bytes_max + _FORM_BYTES
        if self._expected_bytes > bytes_max:
            raise self._too_large()
        self._take_place()
        try:
            async with asyncio.timeout_at(self._deadline_s) as self._waiting:
                message = await self._next()
        except TimeoutError:
            raise self._too_slow() from None
        finally:
            self._waiting = None
        self._heard_s = asyncio.get_running_loop().time()
        count = len(message.get("body", b""))
        self._record.bytes_in += count
        if self._record.bytes_in > bytes_max:
            raise self._too_large()
        held = self._limits.held_bytes
        share = max(settings.uploads_bytes_max // 2, bytes_max)
        if held.total() + count > settings.uploads_bytes_max or held[self._address] + count > share:
            raise busy("overloaded", "too many uploads at once")
        held[self._address] += count
        self._held_bytes += count
        if self._complete:
            self._leave_place()
            self.count()
        return message

    def count(self) -> None:
        """Count it towards `requests_at_once`: all of it is here. Raises `overloaded`."""
        if self._limits.requests >= self._limits.settings.requests_at_once:
            raise busy("overloaded", "too many requests at once")
        self._limits.requests += 1
        self._counted = True

    async def take(self, photo: UploadFile) -> None:
        """Hold the content of a file part, and nothing else of it; beyond the limit `too-large`."""
        self.photo = await photo.read()
        await photo.close()
        if len(self.photo) > self._limits.settings.photo_bytes_max:
            raise self._too_large()

    def release(self) -> None:
        """Forget the photo: it has been decoded, or the request is over."""
        self.photo = None
        self._limits.held_bytes.subtract({self._address: self._held_bytes})
        self._limits.held_bytes += Counter()  # leaves out those that hold nothing
        self._held_bytes = 0

    def end(self) -> None:
        """The request is over."""
        self.release()
        self._leave_place()
        self._limits.requests -= self._counted
        self._counted = False

    async def discard(self) -> None:
        """Read what is left of the body and forget it, within limits.

        A server that answers and closes while the client still sends makes the client's system throw the answer away.
        """
        if self._given_up or self._headers.get("expect", "").lower() == "100-continue":
            return
        self._leave_place()
        left = _DISCARDED_BYTES
        try:
            async with asyncio.timeout(_DISCARD_S):
                while left > 0 and not self._complete:
                    left -= len((await self._next()).get("body", b""))
        except TimeoutError:
            return

    async def _next(self) -> Message:
        message = await self._receive()
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    def _take_place(self) -> None:
        """Among the uploads of its address; where there are too many, those that were silent longest are given up."""
        here = self._limits.uploads.setdefault(self._address, set())
        here.add(self)
        latest_s = asyncio.get_running_loop().time() - _SILENT_S
        while len(here) > _UPLOADS_AN_ADDRESS:
            silent = min(here, key=lambda upload: upload._heard_s)
            if silent._heard_s > latest_s:
                return
            silent._deadline_s = 0.0
            silent._leave_place()
            if silent._waiting is not None:
                silent._waiting.reschedule(0.0)

    def _leave_place(self) -> None:
        here = self._limits.uploads.get(self._address, set())
        here.discard(self)
        if not here:
            self._limits.uploads.pop(self._address, None)

    def _too_slow(self) -> Problem:
        self._given_up = True  # nobody waits for the rest
        if self._deadline_s:
            detail = f"the body was not complete after {self._limits.settings.body_deadline_s:g} s"
        else:
            detail = f"over {_UPLOADS_AN_ADDRESS} uploads at once from this address, and this one was silent longest"
        return Problem("slow-upload", detail, {"Connection": "close"})

    def _too_large(self) -> Problem:
        limit = self._limits.settings.photo_bytes_max
        return Problem("too-large", f"the upload is over the limit of {limit:,} bytes")


class FormParser(MultiPartParser):
    """Reads a multipart form whose photo is a file, whatever name it has or lacks, and that comes to its end."""

    spool_max_size = 1 << 62  # a photo is never written to disk; what arrives is counted as it comes
    ended = False

    def on_headers_finished(self) -> None:
        """A part's headers are there."""
        disposition = self._current_part.content_disposition
        _, options = parse_options_header(disposition)
        if disposition is not None and options.get(b"name") == b"photo" and b"filename" not in options:
            self._current_part.content_disposition = disposition + b'; filename="photo"'
        super().on_headers_finished()

    def on_end(self) -> None:
        """The last boundary is there."""
        self.ended = True


class FormRequest(Request):
    """A request whose form is a multipart one, in which no field comes twice that stands for one value."""

    async def form(self, **limits: Any) -> FormData:  # type: ignore[override]
        """The form, or the problem `unsupported-type` or `validation`."""
        if not self.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise Problem("unsupported-type", "send the photo as multipart/form-data, in a part named photo")
        parser = FormParser(self.headers, self.stream(), **limits)
        with self.state.record.stage("read"):
            try:
                self._form = form = await parser.parse()
            except MultiPartException as error:
                raise Problem("validation", f"the form cannot be read: {error.message}") from None
        if not parser.ended:
            raise Problem("validation", "the form breaks off: its last boundary is missing")
        for name in form:
            if name not in REPEATED_FIELDS and len(form.getlist(name)) > 1:
                raise Problem("validation", f"{name[:60]} came {len(form.getlist(name))} times; give it once")
        return form


class GuardedRoute(APIRoute):
    """A route for clients who have a key, if keys are needed, and are within their rate."""

    tokens = 1.0
    """What a request costs of its client's rate before anything is known of it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, which refuses before the body is read."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            limits: Limits = request.app.state.service.limits
            upload = request.state.upload = Upload(limits, request)
            try:
                limits.check_key(request)
                if self.tokens:
                    limits.charge(request, self.tokens)
                if request.method == "GET":
                    upload.count()
                return await handle(FormRequest(request.scope, upload.receive))
            except HTTPException:
                await upload.discard()
                raise
            finally:
                upload.end()

        return guarded


class SelfChargingRoute(GuardedRoute):
    """A guarded route that counts towards the rate by itself, once it knows what the work is."""

    tokens = 0.0


class NoParameters(BaseModel):
    """The parameters in the address of a route that takes none: what is passed over looks like what was heeded."""

    model_config = ConfigDict(extra="forbid")


async def no_parameters(given: Annotated[NoParameters, Query()]) -> None:
    """A dependency of a route that takes no parameters in its address."""


def _address(request: Request) -> str:
    """Whom a request counts towards, by its address."""
    return client_network(request.client.host) if request.client else "unknown"


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
