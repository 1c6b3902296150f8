"""A names table: what the products of a catalogue are called, in one language or many."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from univert.core.errors import BadInputError, nearest_name
from univert.data.rows import SourceProblem
from univert.data.tables import cell_text, read_table

COLUMNS = ("product", "name", "language", "tags")
"""The columns of a names table; the last two may be missing."""


class ProductName(NamedTuple):
    """One name of one product.

    Attributes:
        product: as in the catalogue's column `product`.
        name: what it is called.
        language: a code such as `en` or `pt-PT`; None where it is not known.
        tags: further words for it.
    """

    product: str
    name: str
    language: str | None = None
    tags: tuple[str, ...] = ()


def read_names(path: Path | str) -> Iterator[ProductName]:
    """Read a names table, which is Parquet, CSV or JSON lines, in its order.

    It has the columns `product` and `name`, and may have `language` and `tags`: a list, or in CSV a text of tags
    separated by commas. Rows without a name are left out.

    Raises:
        BadInputError: there is no such file, it cannot be read, a column is missing, or a row names no product.

    Example:
        >>> from univert.data.sample import NAMES_PATH
        >>> next(row for row in read_names(NAMES_PATH) if row.language == "fr")
        ProductName(product='blendswap-cc-0-ammobox', name='Caisse', language='fr', tags=('Boîte', 'Stockage'))
    """
    path = Path(path)
    if not path.is_file():
        raise BadInputError(f"{path}: no such file; give a names table with the columns 'product' and 'name'")
    for row in read_table(path, COLUMNS, functools.partial(_check_columns, path)):
        if isinstance(row, SourceProblem):
            raise BadInputError(f"{row.origin}: {row.detail}; {row.fix}")
        origin, values = row
        name, product = cell_text(values.get("name")), cell_text(values.get("product"))
        if name is None:
            continue
        if product is None:
            raise BadInputError(f"{origin}: {name!r} has no product; give the product that is called so")
        yield ProductName(product, name, cell_text(values.get("language")), _tags(values))


def texts_of_products(names: Iterable[ProductName], *, tags_together: bool = False) -> dict[str, list[str]]:
    """The different texts of each product, in the order of the names: names, and tags.

    Args:
        names: of products.
        tags_together: not each tag on its own, but the tags of a name as one text, and the name with them as another.

    Example:
        >>> chair = ProductName("7", "Oak chair", "en", ("seat", "wood"))
        >>> texts_of_products([chair]), texts_of_products([chair], tags_together=True)
        ({'7': ['Oak chair', 'seat', 'wood']}, {'7': ['Oak chair', 'seat wood', 'Oak chair seat wood']})
    """
    texts: dict[str, dict[str, None]] = defaultdict(dict)
    for name in names:
        tags = " ".join(name.tags)
        together = (tags, f"{name.name} {tags}") if tags else ()
        texts[name.product].update(dict.fromkeys((name.name, *(together if tags_together else name.tags))))
    return {product: list(found) for product, found in texts.items()}


def _tags(values: Mapping[str, Any]) -> tuple[str, ...]:
    cell = values.get("tags")
    tags = cell if isinstance(cell, list) else (cell_text(cell) or "").split(",")
    return tuple(text for tag in tags if (text := cell_text(tag)))


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    for wanted in COLUMNS[:2]:
        if wanted not in columns:
            near = nearest_name(wanted, columns)
            hint = f"is it {near!r}? " if near else ""
            raise BadInputError(
                f"{path}: no column {wanted!r}; {hint}a names table has the columns 'product' and 'name', "
                "and may have 'language' and 'tags'"
            )
