"""What a person at a terminal sees: progress bars on stderr, in a file lines instead, and tables in one style."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

_ANY_WIDTH = 10_000
_SECONDS_A_LINE = 10.0
_progress = logging.getLogger("univert.progress")
Advance = Callable[[int], None]
"""Call it with the number of units done since the last call."""


@contextlib.contextmanager
def progress_bar(description: str, total: int | None, *, unit: str = "images") -> Iterator[Advance]:
    """Show a progress bar with speed and remaining time on stderr, if that is a terminal; see also `progress_lines`.

    Yields:
        a function to call with the number of units just done; where `total` is None it shows a count without an end.
    """
    so_far = 0
    with _drawn_bar(description, total, unit) if sys.stderr.isatty() else contextlib.nullcontext() as draw:

        def advance(done: int) -> None:
            nonlocal so_far
            so_far += done
            if draw is not None:
                draw(done)
            if _Lines.due():
                of_all = "" if total is None else f" of {total:,}"
                _progress.info("%s: %s%s %s", description, f"{so_far:,}", of_all, unit)

        yield advance


class _Lines:
    """When the next line of progress is due: one for all bars, so that a hundred short stages do not make a hundred."""

    last_s = 0.0

    @classmethod
    def due(cls) -> bool:
        now_s = time.monotonic()
        is_due = _progress.hasHandlers() and now_s - cls.last_s >= _SECONDS_A_LINE
        if is_due:
            cls.last_s = now_s
        return is_due


@contextlib.contextmanager
def progress_lines(handler: logging.Handler) -> Iterator[None]:
    """Meanwhile give a handler of `logging` a line every ten seconds, of whatever progress bar is at work.

    The handler is closed at the end.
    """
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    _progress.setLevel(logging.INFO)
    _progress.addHandler(handler)
    _Lines.last_s = time.monotonic()
    try:
        yield
    finally:
        _progress.removeHandler(handler)
        handler.close()


@contextlib.contextmanager
def _drawn_bar(description: str, total: int | None, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda done: progress.advance(task, done)


class Name:
    """A text in a table that may be cut in its middle, so that figures beside it stay whole.

    Example:
        >>> Name("Home & Garden > Kitchen > Cookware sets").cut(21)
        'Home & Gar…kware sets'
    """

    SHORTEST = 12
    """Columns of a terminal that are left of it at least."""

    def __init__(self, text: str) -> None:
        self.text = text

    def cut(self, width: int) -> str:
        """The text, or its two ends, in at most so many columns of a terminal."""
        from rich.cells import cell_len, set_cell_size

        if cell_len(self.text) <= width:
            return self.text
        half = (width - 1) // 2
        first, last = set_cell_size(self.text, width - 1 - half), set_cell_size(self.text[::-1], half)[::-1]
        return f"{first.strip()}…{last.strip()}"

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.cells import cell_len
        from rich.measure import Measurement

        whole = cell_len(self.text)
        return Measurement(min(whole, self.SHORTEST), whole).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        from rich.text import Text

        yield Text(self.cut(options.max_width), no_wrap=True)


def new_table(title: str, columns: Sequence[str], *, left: Sequence[str] = ()) -> Table:
    """An empty table of `rich`; the columns in `left` hold text, the others numbers.

    `print_table` prints it: a `Name` is cut where the table is too wide, all other cells stay whole.
    """
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
    for name in columns:
        table.add_column(name, justify="left" if name in left else "right")
    return table


def print_table(table: Table, console: Console | None = None) -> None:
    """Print a table on standard output, or another console, in which nothing but a `Name` is ever cut."""
    console = console or output_console()
    wide = console.options.update(width=_ANY_WIDTH)
    for column in table.columns:
        column.no_wrap = not any(isinstance(cell, Name) for cell in column.cells)
        if column.no_wrap:
            column.min_width = max(
                console.measure(cell, options=wide).maximum for cell in (column.header, *column.cells)
            )
    least = console.measure(table, options=wide).minimum
    if least > console.width:
        table.width = least
    console.print(table, crop=False)


def output_console() -> Console:
    """Standard output, as wide as the terminal or as COLUMNS says; where neither does, as wide as what is printed."""
    from rich.console import Console

    columns = os.environ.get("COLUMNS", "")
    given = int(columns) if columns.isdecimal() else 0
    return Console(width=given or (None if sys.stdout.isatty() else _ANY_WIDTH))
