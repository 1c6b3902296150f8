"""Who may ask, how often, how many at once, and how much they may upload: decided before a body is read."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import hmac
import math
import mmap
import os
import secrets
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import Query, Request, Response, UploadFile
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.types import Message

from univert.serving.observability import RequestRecord
from univert.serving.problems import Problem, busy
from univert.serving.settings import RATE_FILE_VARIABLE, Settings

_KEY_BYTES: Final = 32
_BUCKETS: Final = 8192
_BUCKET: Final = struct.Struct("<dd")  # tokens, when they were counted (monotonic clock, one for the machine)
REPEATED_FIELDS: Final = ("vertical", "brand", "style", "source")
"""Fields of a form that may come several times, each with a value of its own."""
_FORM_BYTES: Final = 128_000
"""What the fields and the parts' headers may take besides the photo."""
_DISCARDED_BYTES: Final = 64_000_000
_DISCARD_S: Final = 2.0

MultiPartParser.spool_max_size = 1 << 62  # a photo is never written to disk; what arrives is counted as it comes


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


class RateLimits:
    """A token bucket for each client: `burst` requests at once, then `rate_per_s` a second.

    Clients share `_BUCKETS` buckets by a hash of their name, so memory does not grow with the number of clients;
    two that fall into one share its rate. Processes share the buckets through a small file.

    Args:
        rate_per_s: tokens that come back each second.
        burst: tokens of a full bucket.
        path: the file that processes share; None for this process alone.
    """

    def __init__(self, rate_per_s: float, burst: int, path: Path | None = None) -> None:
        self._rate = rate_per_s
        self._burst = float(burst)
        self._file = tempfile.TemporaryFile() if path is None else path.open("a+b")  # noqa: SIM115
        self._file.truncate(_BUCKETS * _BUCKET.size)
        self._table = mmap.mmap(self._file.fileno(), _BUCKETS * _BUCKET.size)
        self._salt = b"" if path is None else path.name.encode()[:64]

    def take(self, client: str, tokens: float = 1.0) -> float:
        """Count a request of a client, a key's name or an address: 0 if it may go on, else the seconds to wait."""
        digest = hashlib.blake2b(client.encode("utf-8", "replace"), digest_size=8, key=self._salt).digest()
        place = int.from_bytes(digest, "little") % _BUCKETS * _BUCKET.size
        fcntl.lockf(self._file, fcntl.LOCK_EX, _BUCKET.size, place)
        try:
            held, counted_s = _BUCKET.unpack_from(self._table, place)
            now = time.monotonic()
            fresh = counted_s == 0.0 or counted_s > now  # never used, or written before the machine restarted
            held = self._burst if fresh else min(self._burst, held + (now - counted_s) * self._rate)
            allowed = held >= tokens
            _BUCKET.pack_into(self._table, place, held - tokens if allowed else held, now)
            return 0.0 if allowed else (tokens - held) / self._rate
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, _BUCKET.size, place)

    def close(self) -> None:
        """Let go of the file."""
        self._table.close()
        self._file.close()


class Limits:
    """The limits of one worker."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.upload_bytes = 0
        """Held by all uploads together."""
        self._requests = 0
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
        client = request.state.record.key_name or (request.client.host if request.client else "unknown")
        wait_s = self.rates.take(client, tokens) if self.rates is not None else 0.0
        if wait_s:
            detail = f"over {self.settings.rate_per_s:g} requests a second"
            raise busy("rate-limited", detail, max(1, math.ceil(wait_s)))

    @asynccontextmanager
    async def admitted(self, request: Request, tokens: float) -> AsyncIterator[None]:
        """A request that may be served, for as long as it is.

        What is refused does not count towards `requests_at_once`: whoever has no key must not be able to keep out
        those who have one.

        Raises:
            Problem: `unauthorised`, `rate-limited` or `overloaded`.
        """
        self.check_key(request)
        if tokens:
            self.charge(request, tokens)
        if self._requests >= self.settings.requests_at_once:
            raise busy("overloaded", "too many requests at once")
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1


class Upload:
    """The body of a request as it arrives: counted, timed, and held in memory within the budget of its worker."""

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
        self._complete = False
        self._deadline_s = asyncio.get_running_loop().time() + limits.settings.body_deadline_s

    async def receive(self) -> Message:
        """The next message; beyond the limits `too-large`, `slow-upload` or `overloaded`."""
        if self._complete:
            return await self._receive()
        settings = self._limits.settings
        bytes_max = settings.photo_bytes_max + _FORM_BYTES
        if self._expected_bytes > bytes_max:
            raise self._too_large()
        try:
            async with asyncio.timeout_at(self._deadline_s):
                message = await self._next()
        except TimeoutError:
            self._complete = True  # nobody waits for the rest
            detail = f"the body was not complete after {settings.body_deadline_s:g} s"
            raise Problem("slow-upload", detail, {"Connection": "close"}) from None
        count = len(message.get("body", b""))
        self._record.bytes_in += count
        if self._record.bytes_in > bytes_max:
            raise self._too_large()
        if self._limits.upload_bytes + count > settings.uploads_bytes_max:
            raise busy("overloaded", "too many uploads at once")
        self._limits.upload_bytes += count
        self._held_bytes += count
        return message

    async def take(self, photo: UploadFile) -> None:
        """Hold the content of a file part, and nothing else of it; beyond the limit `too-large`."""
        self.photo = await photo.read()
        await photo.close()
        if len(self.photo) > self._limits.settings.photo_bytes_max:
            raise self._too_large()

    def release(self) -> None:
        """Forget the photo: it has been decoded, or the request is over."""
        self.photo = None
        self._limits.upload_bytes -= self._held_bytes
        self._held_bytes = 0

    async def discard(self) -> None:
        """Read what is left of the body and forget it, within limits.

        A server that answers and closes while the client still sends makes the client's system throw the answer away.
        """
        if self._headers.get("expect", "").lower() == "100-continue":
            return
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

    def _too_large(self) -> Problem:
        limit = self._limits.settings.photo_bytes_max
        return Problem("too-large", f"the upload is over the limit of {limit:,} bytes")


class FormRequest(Request):
    """A request whose form is a multipart one, in which no field comes twice that stands for one value."""

    async def form(self, **limits: Any) -> FormData:  # type: ignore[override]
        """The form, or the problem `unsupported-type` or `validation`."""
        if not self.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise Problem("unsupported-type", "send the photo as multipart/form-data, in a part named photo")
        with self.state.record.stage("read"):
            form: FormData = await super().form(**limits)
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
                async with limits.admitted(request, self.tokens):
                    return await handle(FormRequest(request.scope, upload.receive))
            except HTTPException:
                await upload.discard()
                raise
            finally:
                upload.release()

        return guarded


class SelfChargingRoute(GuardedRoute):
    """A guarded route that counts towards the rate by itself, once it knows what the work is."""

    tokens = 0.0


class NoParameters(BaseModel):
    """The parameters in the address of a route that takes none: what is passed over looks like what was heeded."""

    model_config = ConfigDict(extra="forbid")


async def no_parameters(given: Annotated[NoParameters, Query()]) -> None:
    """A dependency of a route that takes no parameters in its address."""


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
