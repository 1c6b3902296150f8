"""The catalogue that ships with Univert: emoji drawn by five artists, in nine verticals.

Every emoji is a product; its images are the same thing drawn by different artists. The artist is the `brand`, the
emoji's group the `vertical`, its subgroup the `style`. `tools/build_sample.py` made the file; NOTICE names each
artist's licence.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.rows import SourceRow

SAMPLE_PATH = Path(__file__).parent / "sample" / "sample.parquet"
"""The file that ships."""

SAMPLE_HELD_OUT_BRAND = "fluent-3d"
"""The artist whose pictures look least like the others': a fair query against an index of the other four."""


def sample_rows() -> Iterator[SourceRow]:
    """The sample's images with their labels, a few at a time.

    The images are WebP with alpha, 64 or 72 px a side. 45% of a vertical's products are labelled training products,
    20% are unlabelled (split `train`, product None), 10% are in `val` and 25% in `test`.

    Yields:
        one row an image; `image` holds the encoded picture, `id` and the order tell nothing about the product.
    """
    with pq.ParquetFile(SAMPLE_PATH) as file:
        for batch in file.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                yield SourceRow(origin=f"sample:{row['id']}", **row)


def build_sample(out: Path, overwrite: bool = False) -> Catalogue:
    """Build the sample as a catalogue on disk, which takes a few seconds.

    Raises:
        BadInputError: `out` exists and `overwrite` is false.
    """
    build_catalogue(sample_rows(), out, overwrite=overwrite)
    return Catalogue.open(out)
