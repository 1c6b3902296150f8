"""Search results as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from univert.core.terminal import new_table
from univert.search.store import Hit


def hits_table(hits: Sequence[Hit]) -> Table:
    """One line a hit, nearest first.

    Args:
        hits: as the index gives them; `distance` is squared Euclidean, 0 (the same) to 4.
    """
    columns = ("", "product", "vertical", "brand", "style", "distance", "id")
    table = new_table(f"{len(hits)} nearest images", columns, left=(*columns[1:5], "id"))
    for place, hit in enumerate(hits, start=1):
        names = [Text(name or "-") for name in (hit.product, hit.vertical, hit.brand, hit.style)]
        table.add_row(str(place), *names, f"{hit.distance:.3f}", Text(hit.id))
    return table
