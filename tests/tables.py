"""Tables of the terminal as text, to look into."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table


def table_text(table: Table, *, width: int = 110) -> str:
    target = io.StringIO()
    Console(file=target, width=width).print(table)
    return target.getvalue().rstrip()
