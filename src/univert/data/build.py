"""Building a catalogue: stream rows, decode each image once in threads, write, publish when all is well."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import os
import re
import sqlite3
import warnings
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from univert.core.errors import BadInputError
from univert.core.files import fingerprint, publishing
from univert.core.terminal import Advance, progress_bar
from univert.data.catalogue import FORMAT_VERSION, is_catalogue
from univert.data.checks import CheckedRow, RowsSoFar, check_row
from univert.data.decode import WHITE, Rgb
from univert.data.rows import ProblemLog, SourceProblem, SourceRow
from univert.data.splits import SplitFractions, split_of
from univert.data.writing import CatalogueWriter

REJECTED_CSV = "rejected.csv"
"""Inside the catalogue's folder, beside what Lance keeps there: every image left out, and why."""

_IN_FLIGHT_PER_WORKER = 4


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """What a build did.

    Attributes:
        path: the catalogue.
        fingerprint: its content fingerprint.
        images: how many images it holds.
        rejected: how many images were left out.
        problems: how many problems of each kind kept them out.
        rejected_csv: the file that lists them; None unless bad images were to be skipped.
    """

    path: Path
    fingerprint: str
    images: int
    rejected: int
    problems: dict[str, int]
    rejected_csv: Path | None

    def summary(self) -> str:
        """The report in one line, or two where images were left out."""
        text = f"{self.path}: {self.images:,} image{'s' if self.images != 1 else ''}"
        if not self.rejected:
            return text
        kinds = ", ".join(f"{count} x {kind}" for kind, count in sorted(self.problems.items()))
        return f"{text}\n{self.rejected:,} left out ({kinds}); each is listed in {self.rejected_csv}"


def build_catalogue(
    rows: Iterable[SourceRow | SourceProblem],
    out: Path | str,
    *,
    link: bool = False,
    skip_bad: bool = False,
    overwrite: bool = False,
    background_rgb: Rgb = WHITE,
    fractions: SplitFractions | None = None,
    workers: int | None = None,
    total: int | None = None,
) -> BuildReport:
    """Build a catalogue from a stream of rows, in memory that does not grow with their number.

    Every image is decoded once to make sure that it can be. The catalogue appears at `out` whole, or not at
    all: on any error, a full disk or Ctrl-C, nothing is left behind and what was there before stays.

    Args:
        rows: what a reader yields.
        out: the folder to publish.
        link: keep the place of each image file (a uri) instead of its bytes.
        skip_bad: leave bad images out and list them in `rejected.csv` in the catalogue's folder.
        overwrite: replace the catalogue at `out`.
        background_rgb: the colour behind transparent pixels.
        fractions: the share of each split, for rows that name none; see `split_of`.
        workers: threads that decode; None takes one per processor.
        total: the number of rows, if known, for the progress bar.

    Raises:
        CatalogueProblemsError: there are bad images and `skip_bad` is false.
        BadInputError: `out` exists and may not be replaced, there are no images, or the disk is full.
    """
    out = Path(out)
    _check_request(out, overwrite, background_rgb)
    try:
        with (
            publishing(out, overwrite=overwrite) as folder,
            ProblemLog(folder / REJECTED_CSV if skip_bad else None) as log,
            CatalogueWriter(folder, background_rgb) as writer,
            contextlib.closing(_checked(rows, link, workers or _processors())) as results,
            progress_bar("Building the catalogue", total) as advance,
            warnings.catch_warnings(),
        ):
            # what Pillow mutters about odd metadata; what keeps an image out is a problem of ours
            warnings.filterwarnings("ignore", module="PIL")
            digest = _fill(writer, log, results, advance, fractions, keep_writing=skip_bad)
            if log.rejected and not (skip_bad and writer.rows):
                raise log.error(_advice(skip_bad))
            if not writer.rows:
                raise BadInputError(
                    "the source holds no images; give a folder with vertical/product/image, or a manifest"
                )
            content = fingerprint(FORMAT_VERSION, list(background_rgb), writer.rows, digest)
            writer.finish(content)
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInputError(
            f"{out}: cannot write the catalogue: {reason}; free some space or choose another place "
            "(nothing was left behind)"
        ) from error
    return BuildReport(
        path=out,
        fingerprint=content,
        images=writer.rows,
        rejected=log.rejected,
        problems=dict(log.counts),
        rejected_csv=out / REJECTED_CSV if skip_bad else None,
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


def _fill(
    writer: CatalogueWriter,
    log: ProblemLog,
    results: Iterator[CheckedRow | SourceProblem],
    advance: Advance,
    fractions: SplitFractions | None,
    *,
    keep_writing: bool,
) -> str:
    """Write the good rows, log the bad ones; returns a digest of what was written, whatever its order."""
    sum_of_digests = 0
    with contextlib.closing(RowsSoFar()) as so_far:
        for result in results:
            log.rows += 1
            if isinstance(result, SourceProblem):
                problems = [result]
            elif result.problems:
                problems = result.problems
            else:
                record = _record(result, fractions)
                problems = so_far.accept(result.row, record["id"], record["split"])
                if not problems and (keep_writing or not log.rejected):
                    writer.add(record)
                    sum_of_digests += _row_digest(record, result.digest)
            if problems:
                log.reject(problems)
            advance(1)
    return f"{sum_of_digests % 2**256:064x}"


def _checked(
    rows: Iterable[SourceRow | SourceProblem], link: bool, workers: int
) -> Generator[CheckedRow | SourceProblem, None, None]:
    """The rows in their order, each checked in a thread, with a bounded number on their way."""
    pending: collections.deque[Future[CheckedRow] | SourceProblem] = collections.deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="univert-check")
    try:
        for row in rows:
            pending.append(row if isinstance(row, SourceProblem) else pool.submit(check_row, row, link=link))
            if len(pending) >= workers * _IN_FLIGHT_PER_WORKER:
                yield _result(pending.popleft())
        while pending:
            yield _result(pending.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _result(pending: Future[CheckedRow] | SourceProblem) -> CheckedRow | SourceProblem:
    return pending if isinstance(pending, SourceProblem) else pending.result()


def _record(checked: CheckedRow, fractions: SplitFractions | None) -> dict[str, Any]:
    row = checked.row
    return {
        "id": row.id if row.id is not None else _derived_id(row, checked.digest),
        "image": checked.content,
        "uri": row.path.absolute().as_uri() if checked.content is None and row.path is not None else None,
        "vertical": row.vertical,
        "product": row.product,
        "brand": row.brand,
        "style": row.style,
        "split": row.split or split_of(row.product, row.vertical, fractions),
        "source": row.source,
        "box": None if checked.box_xyxy_px is None else list(checked.box_xyxy_px),
    }


def _derived_id(row: SourceRow, digest: str) -> str:
    """A name for an image whose source gives none, the same in every build."""
    name = row.path.as_posix() if row.path is not None else f"{row.vertical}/{row.product or '-'}/{digest}"
    if row.box_xyxy_px is None:
        return name
    return name + "#" + ",".join(f"{side:g}" for side in row.box_xyxy_px)


def _row_digest(record: dict[str, Any], image_digest: str) -> int:
    labels = {key: value for key, value in record.items() if key not in ("image", "uri")}
    content = json.dumps([labels, image_digest], sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=32).digest(), "big")


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


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
