"""Tables of the terminal as text, to look into."""

import io

from rich.console import Console
from rich.table import Table

from univert.core.terminal import print_table


def table_text(table: Table, *, width: int = 110) -> str:
    target = io.StringIO()
    print_table(table, Console(file=target, width=width))
    return target.getvalue().rstrip()
