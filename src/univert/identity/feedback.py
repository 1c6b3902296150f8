"""What people said about answers: one JSON line a verdict, written by the service and read by `univert calibrate`."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from univert.core.config import from_plain
from univert.core.errors import BadInputError
from univert.search.query import Hit

_log = logging.getLogger(__name__)

DENIED: Final = "\0"
"""In place of the right value where only a wrong one is known; no column holds it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Feedback:
    """Whether an item shows the same product as somebody's photo.

    Attributes:
        same: what the person said.
        item: the item; its `distance` is not used.
        named: the product that the answer gave as its best guess.
        neighbours: the nearest images, over the whole index.
        model_fingerprint: of the model that made the distances.
        time: when, in UTC.
    """

    same: bool
    item: Hit
    named: str | None
    neighbours: tuple[Hit, ...]
    model_fingerprint: str
    time: str

    def truth(self, attribute: str) -> str | None:
        """The photo's value of an attribute as far as it is told; `DENIED` where the best guess was wrong."""
        if self.same:
            value: str | None = getattr(self.item, attribute)
            return value
        return DENIED if attribute == "product" and self.named and self.named == self.item.product else None


def append_feedback(path: Path, feedback: Feedback) -> None:
    """Add a line to a file; several processes may do so at once.

    Raises:
        OSError: it cannot be written.
    """
    line = json.dumps(dataclasses.asdict(feedback), ensure_ascii=False).encode() + b"\n"
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        end = os.fstat(file).st_size
        if end and os.pread(file, 1, end - 1) != b"\n":  # half a line, from a crash or a full disk
            line = b"\n" + line
        # in one piece, so that lines of several processes do not mix
        if os.write(file, line) < len(line):
            raise OSError(errno.ENOSPC, "only a part of the line could be written", str(path))
    finally:
        os.close(file)


def read_feedback(path: Path, model_fingerprint: str) -> list[Feedback]:
    """What was said about answers of a model; lines of other models, and broken ones, are passed over.

    Raises:
        BadInputError: the file cannot be read, a line is something else than feedback, or none is about this model.
    """
    try:
        lines = path.read_bytes().decode(errors="replace").split("\n")  # a text may hold what `splitlines` splits at
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error}") from None
    found = [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if broken := found.count(None):
        _log.warning("%s: broken lines passed over: %d", path, broken)
    ours = [one for one in found if one is not None and one.model_fingerprint == model_fingerprint]
    if not ours:
        raise BadInputError(f"{path} has no feedback on answers of model {model_fingerprint}; leave out --feedback")
    return ours


def answers(feedback: Iterable[Feedback], attribute: str) -> list[tuple[str, Sequence[Hit]]]:
    """The right value of an attribute and the neighbours that voted, where the former is told."""
    return [(truth, one.neighbours) for one in feedback if (truth := one.truth(attribute)) is not None]


def _parse(line: str, where: str) -> Feedback | None:
    """The feedback in a line; None where the line is broken."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    if not isinstance(values, dict):
        raise BadInputError(f"{where}: not a JSON object; the service writes one a line")
    return from_plain(Feedback, values, where=where)
