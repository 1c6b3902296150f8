"""Tables for a terminal, all in one style."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table


def new_table(title: str, columns: Sequence[str], *, left: Sequence[str] = ()) -> Table:
    """An empty table with a title.

    Args:
        title: what the table shows.
        columns: their headings.
        left: those to align left; the others hold numbers.
    """
    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD)
    for name in columns:
        table.add_column(name, justify="left" if name in left else "right", no_wrap=True)
    return table


def table_text(table: Table, *, width: int = 110) -> str:
    """A table as plain text.

    Args:
        table: any rich table.
        width: characters a line.
    """
    target = io.StringIO()
    Console(file=target, width=width).print(table)
    return target.getvalue().rstrip()
