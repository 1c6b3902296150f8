"""Structured logs: one JSON object a line, written where nobody waits for it."""

from __future__ import annotations

import json
import logging
import queue
import sys
import threading
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from typing import Any, Final

LOGGER: Final = logging.getLogger("univert.serving")

_LINES_MAX: Final = 10_000
_LAST_LINES_S: Final = 2.0


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


class BackgroundLines(QueueHandler):
    """Writes lines to stdout from a thread of its own: a reader of the log that stalls must not stall requests.

    Beyond `_LINES_MAX` waiting lines new ones are dropped, and how many is said when there is room again.
    """

    def __init__(self) -> None:
        super().__init__(queue.Queue(_LINES_MAX))
        self._dropped = 0
        self._listener = QueueListener(self.queue, logging.StreamHandler(sys.stdout))
        self._listener.start()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Hand a line over, or count it as dropped."""
        try:
            if self._dropped:
                said = {"level": "error", "event": "log lines dropped", "lines": self._dropped}
                self.queue.put_nowait(logging.makeLogRecord({"msg": json.dumps(said)}))
                self._dropped = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what waits, but do not wait for ever for a reader that stalls."""
        last = threading.Thread(target=self._listener.stop, daemon=True)
        last.start()
        last.join(_LAST_LINES_S)
        super().close()


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
        "handlers": {"lines": {"()": BackgroundLines, "formatter": "json"}},
        "loggers": {
            "univert": {"level": level.upper()},
            "_granian": {"level": "WARNING"},
            "granian.access": {"level": "CRITICAL"},
            # what is wrong with an upload is said to the client, not by the megabyte to the log
            "python_multipart": {"level": "ERROR"},
        },
        "root": {"handlers": ["lines"], "level": "WARNING"},
    }
