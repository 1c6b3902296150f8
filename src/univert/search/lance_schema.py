"""What a row of an index holds, and rows checked before they are stored."""

from __future__ import annotations

import difflib
from typing import Any, Final

import pyarrow as pa
from numpy.typing import ArrayLike

from univert.core.errors import BadInputError
from univert.search.store import check_unit_vectors

FORMAT_KEY: Final = "univert.index_format"
FORMAT_VERSION: Final = "2"
OLD_FORMAT: Final = "1"
"""Indexes from before there were published versions: read as they are, and brought up to date by the first writer."""
MODEL_KEY: Final = "univert.model_fingerprint"
COMPATIBLE_KEY: Final = "univert.compatible_models"
"""Fingerprints of further models whose vectors lie in the same space, as a JSON list; indexes made before have none."""
REBUILDING_KEY: Final = "univert.rebuilding"
"""Set while an index that was emptied is being filled again."""

CONTENT: Final = "content"
"""The column with a hash of what a vector was made from: the picture and its box; None where that is not known."""
TEXT_COLUMNS: Final = ("id", "vertical", "product", "brand", "style", "split", "source", "uri")


def index_schema(size: int) -> Any:
    """The Arrow schema of an index whose vectors have length `size`."""
    return pa.schema(
        [
            pa.field("vector", pa.list_(pa.float32(), size), nullable=False),
            *(pa.field(name, pa.string()) for name in TEXT_COLUMNS),
            pa.field("image", pa.binary()),
            pa.field("box", pa.list_(pa.float64())),
            pa.field(CONTENT, pa.string()),
        ]
    )


def empty_index(size: int, model_fingerprint: str) -> pa.Table:
    """No rows, with the schema of an index and the record of the model that will make its vectors.

    Raises:
        BadInputError: a size below 1 or an empty fingerprint.
    """
    if size < 1:
        raise BadInputError(f"size must be at least 1, got {size}")
    if not model_fingerprint:
        raise BadInputError("model_fingerprint must not be empty; pass the fingerprint of the model")
    metadata = {FORMAT_KEY: FORMAT_VERSION, MODEL_KEY: model_fingerprint}
    return index_schema(size).with_metadata(metadata).empty_table()


def index_rows(vectors: ArrayLike, columns: pa.Table, size: int) -> pa.Table:
    """Rows as an index stores them.

    Args:
        vectors: (N, D) unit vectors.
        columns: N rows with `id` and `vertical`, and any of `product`, `brand`, `style`, `split`, `source`, `image`
            (encoded bytes), `uri`, `box` (x0, y0, x1, y1, pixels of the upright image) and `content` (a hash of what
            the vector was made from).
        size: the length D of the index's vectors.

    Raises:
        BadInputError: vectors that are not finite unit vectors of the index's size, another number of
            rows, unknown columns, or rows without id or vertical.
    """
    array = check_unit_vectors(vectors, size)
    if len(array) != columns.num_rows:
        raise BadInputError(f"{len(array)} vectors for {columns.num_rows} rows; give one vector a row")
    schema = index_schema(size)
    for name in columns.column_names:
        if name not in schema.names[1:]:
            near = difflib.get_close_matches(name, schema.names[1:], n=1, cutoff=0.0)[0]
            raise BadInputError(f"an index has no column {name!r}; did you mean {near!r}?")
    for name in ("id", "vertical"):
        if name not in columns.column_names or columns[name].null_count:
            raise BadInputError(f"every row of an index needs {name}; fill the column {name!r}")
    arrays: list[Any] = [pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), size)]
    for field in list(schema)[1:]:
        present = field.name in columns.column_names
        arrays.append(columns[field.name].cast(field.type) if present else pa.nulls(len(array), field.type))
    return pa.table(arrays, schema=schema)


def check_unique(ids: pa.ChunkedArray) -> None:
    """Refuse an id that occurs twice.

    Raises:
        BadInputError: it does; the message names it.
    """
    for entry in ids.value_counts():
        if entry["counts"].as_py() > 1:
            raise BadInputError(
                f"the id {entry['values'].as_py()!r} occurs more than once; ids must be unique in an index"
            )
