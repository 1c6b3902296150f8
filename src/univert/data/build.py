"""Building a catalogue: stream rows, decode each image once in threads, write, publish when all is well."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sqlite3
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
from lance.fragment import FragmentMetadata, write_fragments

from univert.core.errors import BadInputError
from univert.core.files import fingerprint, publishing
from univert.core.terminal import progress_bar
from univert.core.threads import decoding_threads, map_ahead
from univert.data.catalogue import (
    BACKGROUND_KEY,
    FINGERPRINT_KEY,
    FORMAT_KEY,
    FORMAT_VERSION,
    SCHEMA,
    Catalogue,
    is_catalogue,
)
from univert.data.checks import CheckedRow, RowsSoFar, check_row
from univert.data.decode import WHITE, Rgb
from univert.data.rows import CatalogueProblemsError, ProblemLog, SourceProblem, SourceRow, printable
from univert.data.splits import NO_SPLIT, split_of
from univert.data.suspicious import SUSPECT_COLUMNS, suspicious

REJECTED_CSV = "rejected.csv"
"""Inside the catalogue's folder, beside what Lance keeps there: every image left out, and why."""

_BATCH_ROWS = 8192
_BATCH_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build did: the images of the catalogue, those left out, and how many problems of each kind they had.

    `rejected_csv` lists them; it is None unless bad images were to be skipped. `warnings` say what to look at.
    """

    path: Path
    fingerprint: str
    images: int
    rejected: int
    problems: dict[str, int]
    rejected_csv: Path | None
    warnings: list[str]

    def summary(self) -> str:
        """The report in one line, one more where images were left out, and one a warning."""
        lines = [f"{self.path}: {self.images:,} image{'s' if self.images != 1 else ''}"]
        if self.rejected:
            kinds = ", ".join(f"{count} x {kind}" for kind, count in sorted(self.problems.items()))
            lines.append(f"{self.rejected:,} left out ({kinds}); each is listed in {self.rejected_csv}")
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])


def build_catalogue(
    rows: Iterable[SourceRow | SourceProblem],
    out: Path | str,
    *,
    link: bool = False,
    skip_bad: bool = False,
    overwrite: bool = False,
    background_rgb: Rgb = WHITE,
    workers: int | None = None,
    total: int | None = None,
) -> BuildReport:
    """Build a catalogue from a stream of rows, in memory that grows with their names alone, never with the images.

    Every image is decoded once to make sure that it can be; a row that repeats an earlier one is passed over. The
    catalogue appears at `out` whole, or not at all: on any error, a full disk or Ctrl-C, nothing is left behind and
    what was there before stays.

    Args:
        rows: what a reader yields.
        out: the folder to publish.
        link: keep the place of each image file (a uri) instead of its bytes.
        skip_bad: leave bad images out and list them in `rejected.csv` in the catalogue's folder.
        overwrite: replace the catalogue at `out`.
        background_rgb: the colour behind transparent pixels.
        workers: threads that decode; None takes one a core, at most 8.
        total: the number of rows, if known, for the progress bar.

    Raises:
        CatalogueProblemsError: there are bad images and `skip_bad` is false.
        BadInputError: `out` exists and may not be replaced, there are no images, or the disk is full.
    """
    out = Path(out)
    _check_request(out, overwrite, background_rgb)

    def check(row: SourceRow | SourceProblem) -> CheckedRow | SourceProblem:
        return row if isinstance(row, SourceProblem) else check_row(row, link=link)

    sum_of_digests = 0  # the same whatever the order of the rows
    repeated, first_repeated = 0, ""
    try:
        with (
            publishing(out, overwrite=overwrite) as folder,
            ProblemLog(folder / REJECTED_CSV if skip_bad else None) as log,
            contextlib.closing(RowsSoFar()) as so_far,
            contextlib.closing(map_ahead(check, rows, workers=decoding_threads(workers), ahead=16)) as results,
            progress_bar("Building the catalogue", total) as advance,
            warnings.catch_warnings(),
        ):
            # what Pillow mutters about odd metadata; what keeps an image out is a problem of ours
            warnings.filterwarnings("ignore", module="PIL")
            writer = _CatalogueWriter(folder)
            for result in results:
                log.rows += 1
                advance(1)
                problems = [result] if isinstance(result, SourceProblem) else result.problems
                if isinstance(result, CheckedRow) and not problems:
                    record = _record(result)
                    content = _row_digest(record)
                    earlier = so_far.repeats(record["id"], content)
                    if earlier is not None:
                        first_repeated = first_repeated or f"{printable(result.row.origin)} repeats {earlier}"
                        repeated += 1
                        continue
                    problems = so_far.accept(result.row, record["id"], record["split"], content)
                    if not problems and (skip_bad or not log.rejected):
                        writer.add(record)
                        sum_of_digests += int(content, 16)
                if problems:
                    log.reject(problems)
            if log.rejected and not (skip_bad and writer.rows):
                heading = f"{log.rejected:,} of {log.rows:,} images cannot enter the catalogue:"
                message = f"{heading}\n{log.summary()}\n{_advice(skip_bad)}"
                raise CatalogueProblemsError(message, dict(log.counts))
            if not writer.rows:
                raise BadInputError(
                    "the source holds no images; give a folder with vertical/product/image, or a manifest"
                )
            digest = f"{sum_of_digests % 2**256:064x}"
            of_catalogue = fingerprint(FORMAT_VERSION, list(background_rgb), writer.rows, digest)
            writer.finish(of_catalogue, background_rgb)
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or str(error).split(", /")[0].split(", <")[0]
        raise BadInputError(
            f"{out}: cannot write the catalogue: {reason}; free some space or choose another place "
            "(nothing was left behind)"
        ) from error
    repeats = f"rows that repeat another, each taken once: {repeated:,} ({first_repeated}); remove them"
    images = Catalogue.open(out)
    columns = {name: pa.array(images.column(name), pa.string()) for name in SUSPECT_COLUMNS}
    looks_wrong = [] if images.in_scene.all() else suspicious(pa.table(columns))
    return BuildReport(
        path=out,
        fingerprint=of_catalogue,
        images=writer.rows,
        rejected=log.rejected,
        problems=dict(log.counts),
        rejected_csv=out / REJECTED_CSV if skip_bad else None,
        warnings=([repeats] if repeated else []) + looks_wrong,
    )


def parse_background(text: str) -> Rgb:
    """A colour written as six hexadecimal digits, with or without `#`.

    Raises:
        BadInputError: it is written another way.

    Example:
        >>> parse_background("#ff8000")
        (255, 128, 0)
    """
    digits = text.removeprefix("#")
    if not re.fullmatch("[0-9a-fA-F]{6}", digits):
        raise BadInputError(f"background {text!r}: must be six hexadecimal digits RRGGBB, for example ffffff")
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


class _CatalogueWriter:
    """Writes records to a Lance dataset, a fragment a few thousand; `finish` makes them a catalogue."""

    def __init__(self, folder: Path) -> None:
        self.rows = 0
        self._folder = str(folder)
        self._records: list[dict[str, Any]] = []
        self._bytes = 0
        self._fragments: list[FragmentMetadata] = []

    def add(self, record: dict[str, Any]) -> None:
        self._records.append(record)
        self._bytes += len(record["image"] or b"")
        self.rows += 1
        if len(self._records) >= _BATCH_ROWS or self._bytes >= _BATCH_BYTES:
            self._flush()

    def finish(self, content_fingerprint: str, background_rgb: Rgb) -> None:
        if self._records:
            self._flush()
        schema = SCHEMA.with_metadata(
            {
                FORMAT_KEY: FORMAT_VERSION,
                BACKGROUND_KEY: json.dumps(list(background_rgb)),
                FINGERPRINT_KEY: content_fingerprint,
            }
        )
        lance.LanceDataset.commit(self._folder, lance.LanceOperation.Overwrite(schema, self._fragments))

    def _flush(self) -> None:
        batch = pa.Table.from_pylist(self._records, schema=SCHEMA)
        self._records, self._bytes = [], 0
        self._fragments += write_fragments(batch, self._folder, schema=SCHEMA, mode="create")


def _record(checked: CheckedRow) -> dict[str, Any]:
    row = checked.row
    record: dict[str, Any] = {
        "id": row.id if row.id is not None else _derived_id(row, checked.digest),
        "image": checked.content,
        "uri": row.path.absolute().as_uri() if checked.content is None and row.path is not None else None,
        "vertical": row.vertical,
        "product": row.product,
        "brand": row.brand,
        "style": row.style,
        "split": None if row.split == NO_SPLIT else row.split or _split(row, checked.digest),
        "source": row.source,
        "box": None if checked.box_xyxy_px is None else list(checked.box_xyxy_px),
        "digest": checked.digest if checked.box_xyxy_px is None else f"{checked.digest} {checked.box_xyxy_px}",
    }
    if checked.items is not None:
        record["items"] = [
            {"box": list(item.box_xyxy_px), "vertical": item.vertical, "product": item.product}
            for item in checked.items
        ]
        record["ignored"] = [list(box) for box in checked.ignored]
    return record


def _split(row: SourceRow, digest: str) -> str:
    """By product, of a scene by the first that is known; a scene without any is one by itself."""
    if row.items is None:
        return split_of(row.product, row.vertical)
    known = next((item for item in row.items if item.product), None)
    return split_of(digest, "") if known is None else split_of(known.product, known.vertical)


def _derived_id(row: SourceRow, digest: str) -> str:
    """A name for an image whose source gives none, the same in every build."""
    name = row.path.as_posix() if row.path is not None else f"{row.vertical}/{row.product or '-'}/{digest}"
    if row.box_xyxy_px is None:
        return name
    return name + "#" + ",".join(f"{side:g}" for side in row.box_xyxy_px)


def _row_digest(record: dict[str, Any]) -> str:
    """A hash, in hexadecimal digits, of all that a row says, wherever its image lies."""
    labels = {key: value for key, value in record.items() if key not in ("image", "uri")}
    return hashlib.blake2b(json.dumps(labels, sort_keys=True).encode(), digest_size=32).hexdigest()


def _check_request(out: Path, overwrite: bool, background_rgb: Rgb) -> None:
    if len(background_rgb) != 3 or not all(0 <= value <= 255 for value in background_rgb):
        raise BadInputError(f"background_rgb: must be three numbers from 0 to 255, got {background_rgb}")
    replaceable = not out.exists() or is_catalogue(out) or (out.is_dir() and not any(out.iterdir()))
    if overwrite and not replaceable:
        raise BadInputError(f"{out} is not a catalogue, so --overwrite leaves it alone; choose another path")


def _advice(skip_bad: bool) -> str:
    if skip_bad:
        return "No image is left, so nothing was written."
    return f"Nothing was written. Fix these, or pass --skip-bad to leave them out (see {REJECTED_CSV} then)."
