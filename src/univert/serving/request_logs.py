"""Structured logs: one JSON object a line, one line a request, with the request's id."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

LOGGER: Final = logging.getLogger("univert.serving")

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(kw_only=True, slots=True)
class RequestRecord:
    """What is known of a request while it is served; written to the log when it ends.

    Attributes:
        request_id: as the client gave it, or a new one.
        started_s: when its headers had arrived, on the monotonic clock.
        key_name: the name of the API key it came with; None without keys.
        problem: the type of problem it was answered with; None if it went well.
        index_version: the version of the index that answered; None if none was asked.
        bytes_in: bytes of its body that arrived.
        body_complete: its last byte arrived.
        stages_s: seconds of each stage it went through.
    """

    request_id: str
    started_s: float = field(default_factory=time.perf_counter)
    key_name: str | None = None
    problem: str | None = None
    index_version: int | None = None
    bytes_in: int = 0
    body_complete: bool = False
    stages_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stages_s[name] = self.stages_s.get(name, 0.0) + time.perf_counter() - start

    def total_s(self) -> float:
        """Seconds since the headers arrived."""
        return time.perf_counter() - self.started_s


def request_id_from(headers: Mapping[bytes, bytes]) -> str:
    """The client's `X-Request-ID` if it is a plain short word, so that it is safe in logs; otherwise a new one."""
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


class JsonFormatter(logging.Formatter):
    """Log records as JSON lines: time, level, event, and whatever `fields` the record carries."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "process": record.process,
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log(level: int, event: str, *, failed: bool = False, **fields: Any) -> None:
    """Write a line.

    Args:
        level: as `logging` has them.
        event: what happened, a few fixed words.
        failed: add the traceback of the exception being handled.
        fields: further keys of the line.
    """
    LOGGER.log(level, event, extra={"fields": fields}, exc_info=failed)


def logging_config(level: str) -> dict[str, Any]:
    """The configuration for `logging.config`: every line in one form, to stdout."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"lines": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stdout"}},
        "loggers": {
            "univert": {"handlers": ["lines"], "level": level.upper(), "propagate": False},
            "uvicorn": {"handlers": ["lines"], "level": "INFO", "propagate": False},
            "uvicorn.access": {"handlers": [], "level": "CRITICAL", "propagate": False},
            # what is wrong with an upload is said to the client, not by the megabyte to the log
            "python_multipart": {"level": "ERROR"},
        },
        "root": {"handlers": ["lines"], "level": "WARNING"},
    }
