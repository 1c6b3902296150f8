"""Filling a new index: rows checked and appended chunk by chunk, search structures built at the end."""

from __future__ import annotations

import datetime
import difflib
import math
from pathlib import Path
from typing import Any, Final

import lancedb
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.index import Bitmap, BTree, HnswSq
from numpy.typing import ArrayLike

from univert.core.errors import BadInputError
from univert.search.store import check_unit_vectors

TABLE: Final = "images"
FORMAT_KEY: Final = "univert.index_format"
FORMAT_VERSION: Final = "1"
MODEL_KEY: Final = "univert.model_fingerprint"
COMPATIBLE_KEY: Final = "univert.compatible_models"
"""Fingerprints of further models whose vectors lie in the same space, as a JSON list; indexes made before have none."""

_TEXT_COLUMNS: Final = ("id", "vertical", "product", "brand", "style", "split", "source", "uri")
_EF_CONSTRUCTION: Final = 150
"""Half the build time of the engine's 300; the same recall once the candidates' full vectors are compared."""
_ROWS_A_GRAPH: Final = 1_000_000


def index_schema(size: int) -> Any:
    """The Arrow schema of an index whose vectors have length `size`."""
    return pa.schema(
        [
            pa.field("vector", pa.list_(pa.float32(), size), nullable=False),
            *(pa.field(name, pa.string()) for name in _TEXT_COLUMNS),
            pa.field("image", pa.binary()),
            pa.field("box", pa.list_(pa.float64())),
        ]
    )


def index_rows(vectors: ArrayLike, columns: pa.Table, size: int) -> pa.Table:
    """Rows as an index stores them; see `LanceIndexWriter.add` for arguments and errors."""
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


def build_search_structures(table: Any) -> None:
    """Build the graph for approximate search and the indexes of the columns that a search is narrowed by."""
    graphs = math.ceil(table.count_rows() / _ROWS_A_GRAPH)
    config = HnswSq(distance_type="l2", num_partitions=graphs, ef_construction=_EF_CONSTRUCTION)
    table.create_index("vector", config=config)
    for name in ("vertical", "brand", "style", "split", "source"):
        table.create_index(name, config=Bitmap())
    for name in ("id", "product"):
        table.create_index(name, config=BTree())


class LanceIndexWriter:
    """Fills a new index; see `univert.search.lance_store.LanceIndex.create`."""

    def __init__(self, folder: Path, size: int, model_fingerprint: str, exact_rows: int) -> None:
        if size < 1:
            raise BadInputError(f"size must be at least 1, got {size}")
        if not model_fingerprint:
            raise BadInputError("model_fingerprint must not be empty; pass the fingerprint of the model")
        self.size = size
        self._exact_rows = exact_rows
        schema = index_schema(size).with_metadata({FORMAT_KEY: FORMAT_VERSION, MODEL_KEY: model_fingerprint})
        self._table = lancedb.connect(str(folder)).create_table(TABLE, schema=schema)

    def add(self, vectors: ArrayLike, columns: pa.Table) -> None:
        """Append images.

        Args:
            vectors: (N, D) unit vectors.
            columns: N rows with `id` and `vertical`, and any of `product`, `brand`, `style`, `split`,
                `source`, `image` (encoded bytes), `uri`, `box` (x0, y0, x1, y1, pixels of the upright image).

        Raises:
            BadInputError: vectors that are not finite unit vectors of the index's size, another number of
                rows, unknown columns, or rows without id or vertical.
        """
        rows = index_rows(vectors, columns, self.size)
        if len(rows):
            self._table.add(rows)

    def finish(self) -> None:
        """Check that ids are unique and build the search structures that pay for this many rows.

        Raises:
            BadInputError: no rows, or an id twice.
        """
        rows = self._table.count_rows()
        if not rows:
            raise BadInputError("nothing to index: the catalogue (or the selection of it) has no images")
        ids = self._table.search().select(["id"]).to_arrow()["id"]
        if pc.count_distinct(ids).as_py() != rows:
            twice = next(entry["values"] for entry in ids.value_counts().to_pylist() if entry["counts"] > 1)
            raise BadInputError(f"the id {twice!r} occurs more than once; ids must be unique in an index")
        if rows > self._exact_rows:
            build_search_structures(self._table)
        # Nobody reads an unpublished index, so the versions that each added chunk left behind can go.
        self._table.to_lance().cleanup_old_versions(datetime.timedelta(0), delete_unverified=True)
