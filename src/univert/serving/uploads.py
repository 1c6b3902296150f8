"""Multipart bodies read as they stream in: counted, timed, held in memory within a budget, never on disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from univert.serving.problems import Problem, busy
from univert.serving.request_logs import RequestRecord

FIELDS_MAX: Final = 200
FIELD_BYTES_MAX: Final = 16_384
_FORM_BYTES: Final = 128_000
"""What the fields and the parts' headers may take besides the photo."""

_LINGER_BYTES: Final = 64_000_000
_LINGER_S: Final = 2.0


class UploadMemory:
    """How many bytes of uploads this process holds, and may hold.

    Args:
        limit_bytes: all uploads together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.held_bytes = 0

    def take(self, count: int) -> bool:
        """Hold so many bytes more, if they fit."""
        if self.held_bytes + count > self._limit_bytes:
            return False
        self.held_bytes += count
        return True

    def give_back(self, count: int) -> None:
        """Hold so many bytes less."""
        self.held_bytes -= count


@dataclass(kw_only=True, slots=True)
class UploadLimits:
    """What an upload may be; see the fields of the same names in `univert.serving.settings.Settings`."""

    photo_bytes_max: int
    body_deadline_s: float
    retry_after_s: int


@dataclass(kw_only=True, slots=True)
class Form:
    """A form that has arrived.

    Attributes:
        photo: the content of the file part; None where there is none.
        fields: the other parts by name, in their order.
    """

    memory: UploadMemory
    photo: bytes | None = None
    fields: dict[str, list[str]] = field(default_factory=dict)
    held_bytes: int = 0

    def release(self) -> None:
        """Forget the photo: it has been decoded, or the request is over."""
        self.photo = None
        self.memory.give_back(self.held_bytes)
        self.held_bytes = 0


class _InMemoryParser(MultiPartParser):
    spool_max_size = 1 << 62  # a photo is never written to disk; the stream is bounded before it gets here


@asynccontextmanager
async def read_form(
    request: Request, limits: UploadLimits, memory: UploadMemory, record: RequestRecord
) -> AsyncIterator[Form]:
    """Read a multipart body: one file part named `photo`, and fields.

    Args:
        request: whose body has not been touched.
        limits: what it may be.
        memory: the budget that it counts against until it is released or the block ends.
        record: told how many bytes arrived.

    Raises:
        Problem: `unsupported-type`, `too-large`, `slow-upload`, `overloaded` or `validation`.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Problem("unsupported-type", "send the photo as multipart/form-data, in a part named photo")
    bytes_max = limits.photo_bytes_max + _FORM_BYTES
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > bytes_max:
        await discard_body(request, record)
        raise _too_large(limits)
    form = Form(memory=memory)
    try:
        try:
            with record.stage("read"):
                async with asyncio.timeout(limits.body_deadline_s):
                    await _parse(request, form, bytes_max, limits, record)
        except TimeoutError:
            raise Problem(
                "slow-upload", f"the body was not complete after {limits.body_deadline_s:g} s", {"Connection": "close"}
            ) from None
        except _OverLimitError:
            await discard_body(request, record)
            raise _too_large(limits) from None
        except _NoMemoryError:
            await discard_body(request, record)
            raise busy("overloaded", "too many uploads at once", limits.retry_after_s) from None
        except MultiPartException as error:
            await discard_body(request, record)
            raise Problem("validation", f"the multipart body cannot be read: {error.message}") from None
        except ClientDisconnect:
            raise Problem("validation", "the connection ended before the body did") from None
        if form.photo is not None and len(form.photo) > limits.photo_bytes_max:
            raise _too_large(limits)
        yield form
    finally:
        form.release()


async def discard_body(request: Request, record: RequestRecord) -> None:
    """Read what is left of a body and forget it, within limits.

    A server that answers and closes while the client still sends makes the client's system throw the answer away.
    """
    if request.headers.get("expect", "").lower() == "100-continue":
        return
    left = _LINGER_BYTES
    try:
        async with asyncio.timeout(_LINGER_S):
            while left > 0 and not record.body_complete:
                message = await request.receive()
                if message["type"] != "http.request":
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return


class _OverLimitError(Exception):
    pass


class _NoMemoryError(Exception):
    pass


async def _parse(request: Request, form: Form, bytes_max: int, limits: UploadLimits, record: RequestRecord) -> None:
    async def counted() -> AsyncGenerator[bytes, None]:
        async for chunk in request.stream():
            record.bytes_in += len(chunk)
            if record.bytes_in > bytes_max:
                raise _OverLimitError
            if not form.memory.take(len(chunk)):
                raise _NoMemoryError
            form.held_bytes += len(chunk)
            yield chunk

    parser = _InMemoryParser(
        request.headers, counted(), max_files=1, max_fields=FIELDS_MAX, max_part_size=FIELD_BYTES_MAX
    )
    parts = await parser.parse()
    try:
        for name, value in parts.multi_items():
            await _take(form, name, value)
    finally:
        await parts.close()


async def _take(form: Form, name: str, value: UploadFile | str) -> None:
    if isinstance(value, UploadFile):
        if name != "photo":
            raise Problem("validation", f"a file in the part {name[:60]!r}; the photo's part is named photo")
        form.photo = await value.read()
    elif name == "photo":
        raise Problem("validation", "photo must be a file part, with a file name; it came as a plain field")
    else:
        form.fields.setdefault(name, []).append(value)


def _too_large(limits: UploadLimits) -> Problem:
    return Problem("too-large", f"the upload is over the limit of {limits.photo_bytes_max:,} bytes")
