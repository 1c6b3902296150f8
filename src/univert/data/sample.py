"""The home sample, which ships with Univert: product pictures, and photos of rooms and gardens with products in them.

A product's `brand` is the library of 3-D models it comes from, its `style` the room that the library files it under.
docs/home.md describes the two files, `tools/build_home.py` made them, and NOTICE names the licences.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.readers import count_rows, open_source
from univert.data.rows import SourceRow

SAMPLE_PATHS = tuple(Path(__file__).parent / "sample" / name for name in ("products.parquet", "scenes.parquet"))
"""The files that ship."""

NAMES_PATH = Path(__file__).parent / "sample" / "names.parquet"
"""The products' names and tags in 21 languages: a names table (see `univert.data.names`)."""

PRODUCT_PICTURES = "product picture"
"""The `source` of the shop's pictures, which an index for shoppers holds."""


def sample_rows() -> Iterator[SourceRow]:
    """The sample's product pictures and then its scenes, a few at a time, their images as JPEG.

    Splits are disjoint by product. The items of a third of the train scenes have no product.
    """
    for row in chain.from_iterable(map(open_source, SAMPLE_PATHS)):
        assert isinstance(row, SourceRow), row
        yield row


def build_sample(out: Path, overwrite: bool = False) -> Catalogue:
    """Build the sample as one catalogue on disk, which takes a few seconds.

    Raises:
        BadInputError: `out` exists and `overwrite` is false.
    """
    total = sum(count_rows(path) or 0 for path in SAMPLE_PATHS)
    build_catalogue(sample_rows(), out, overwrite=overwrite, total=total)
    return Catalogue.open(out)
