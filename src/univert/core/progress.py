"""Progress on long work: a bar on stderr where a person watches, silence where a program does."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Advance = Callable[[int], None]
"""Call it with the number of units done since the last call."""


@contextlib.contextmanager
def progress_bar(description: str, total: int | None, *, unit: str = "images") -> Iterator[Advance]:
    """Show a progress bar with speed and remaining time on stderr; do nothing when it is not a terminal.

    Args:
        description: what is going on, a few words.
        total: units of work in all; None shows a count without an end.
        unit: the name of a unit.

    Yields:
        a function to call with the number of units just done.
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
