"""What a person at a terminal sees: progress bars on stderr, and tables in one style."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

Advance = Callable[[int], None]
"""Call it with the number of units done since the last call."""


@contextlib.contextmanager
def progress_bar(description: str, total: int | None, *, unit: str = "images") -> Iterator[Advance]:
    """Show a progress bar with speed and remaining time on stderr; do nothing when it is not a terminal.

    Yields:
        a function to call with the number of units just done; where `total` is None it shows a count without an end.
    """
    if not sys.stderr.isatty():
        yield lambda done: None
        return
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


def new_table(title: str, columns: Sequence[str], *, left: Sequence[str] = ()) -> Table:
    """An empty table of `rich`; the columns in `left` hold text, the others numbers."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
    for name in columns:
        table.add_column(name, justify="left" if name in left else "right", no_wrap=True)
    return table
