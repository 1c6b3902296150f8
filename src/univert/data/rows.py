"""What a reader yields: one image of a source, or why it cannot be used; and the summary of all that cannot."""

from __future__ import annotations

import contextlib
import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from univert.core.errors import BadInputError

SHOWN_PER_KIND = 3
"""How many problems of each kind a summary names."""
_SHOWN_CHARACTERS = 500
"""Of what is wrong with one, in a summary: where a quotation mark is not closed, a value is half a file."""

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Characters that no name holds, and that do as they please with a terminal."""


@dataclass(frozen=True, slots=True)
class SourceProblem:
    """Why one image, or one entry of a source, cannot be used.

    Attributes:
        kind: a few words that many problems share, to count them by.
        origin: the file, or the manifest and its line.
        detail: what is wrong with this one.
        fix: what the user can do.
    """

    kind: str
    origin: str
    detail: str
    fix: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A thing to be seen in a scene.

    Attributes:
        box_xyxy_px: where (x0, y0, x1, y1), in pixels of the upright image.
        vertical: what kind of thing.
        product: its identity; None where it is not known.
    """

    box_xyxy_px: tuple[float, float, float, float]
    vertical: str
    product: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRow:
    """One image as a reader found it, before it is checked and enters a catalogue.

    Exactly one of `path` and `image` is set. A scene has `items`, and no vertical, product and box of its own.

    Attributes:
        origin: where the row came from, for messages: a file name, or `manifest.csv:12`.
        vertical: the vertical's name.
        path: the image file.
        image: the encoded image itself.
        id: unique name of the image; None lets the catalogue derive one.
        product: the identity; None means unlabelled.
        brand: who makes the product, if known.
        style: the product's type within the vertical, if known.
        split: `train`, `val`, `test`, or `none` of them; None lets the catalogue decide.
        source: where the image was taken from (a shop photo, a user's photo, a collection).
        box_xyxy_px: the item within the image (x0, y0, x1, y1), in pixels of the upright image.
        items: what a scene shows; None for the image of one product.
        ignored: boxes of what in a scene is neither an item nor background: hardly visible things, crowds.
        size: (width, height) of the upright image as the source tells it, if it does; boxes are in pixels of that.
    """

    origin: str
    vertical: str = ""
    path: Path | None = None
    image: bytes | None = None
    id: str | None = None
    product: str | None = None
    brand: str | None = None
    style: str | None = None
    split: str | None = None
    source: str | None = None
    box_xyxy_px: tuple[float, float, float, float] | None = None
    items: tuple[Item, ...] | None = None
    ignored: tuple[tuple[float, float, float, float], ...] = ()
    size: tuple[int, int] | None = None

    def problem(self, kind: str, detail: str, fix: str) -> SourceProblem:
        """Why this row cannot be used; see `SourceProblem`."""
        return SourceProblem(kind, self.origin, detail, fix)


SourceRows = Iterator[SourceRow | SourceProblem]
"""What a reader yields."""


class CatalogueProblemsError(BadInputError):
    """Images that cannot enter the catalogue: the message counts each kind and names the first three of it.

    Attributes:
        counts: number of problems of each kind.
    """

    def __init__(self, message: str, counts: dict[str, int]) -> None:
        super().__init__(message)
        self.counts = counts


class ProblemLog(contextlib.AbstractContextManager["ProblemLog"]):
    """Collects problems in constant memory: counts, the first of each kind, and, if asked, all in a CSV file.

    Attributes:
        counts: number of problems of each kind.
        examples: the first three of each kind.
        rows: how many were seen, good and bad; the caller counts them.
        rejected: how many of them had a problem.
    """

    COLUMNS = ("origin", "kind", "detail", "fix")

    def __init__(self, rejected_csv: Path | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: defaultdict[str, list[str]] = defaultdict(list)
        self.rows = 0
        self.rejected = 0
        self._file: IO[str] | None = None
        self._writer: Any = None
        if rejected_csv is not None:
            # names that are not UTF-8 must not stop the list that names them
            self._file = rejected_csv.open("w", newline="", encoding="utf-8", errors="backslashreplace")
            self._writer = csv.writer(self._file)
            self._writer.writerow(self.COLUMNS)

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def reject(self, problems: list[SourceProblem]) -> None:
        """Record what keeps one image out."""
        self.rejected += 1
        for problem in problems:
            self.counts[problem.kind] += 1
            if len(self.examples[problem.kind]) < SHOWN_PER_KIND:
                long = len(problem.detail) > _SHOWN_CHARACTERS
                detail = f"{problem.detail[:_SHOWN_CHARACTERS]} ..." if long else problem.detail
                self.examples[problem.kind].append(printable(f"{problem.origin}: {detail}; {problem.fix}"))
            if self._writer is not None:
                self._writer.writerow((problem.origin, problem.kind, problem.detail, problem.fix))

    def summary(self) -> str:
        """A line a kind, the most frequent first, with examples below it."""
        lines = []
        for kind, count in self.counts.most_common():
            lines += [f"  {count:,} x {kind}", *(f"    {example}" for example in self.examples[kind])]
        return "\n".join(lines)


def printable(text: str) -> str:
    r"""Text that any UTF-8 terminal can show: bytes that are not UTF-8 become `\udcff`, control characters `\x1b`."""
    escaped = CONTROL.sub(lambda found: repr(found[0])[1:-1], text)
    return escaped.encode("utf-8", "backslashreplace").decode("utf-8")


def is_utf8(text: str) -> bool:
    """Whether text can be stored: false where it carries undecodable bytes of a file name."""
    return text == text.encode("utf-8", "replace").decode("utf-8")
