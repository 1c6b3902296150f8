"""Where an index lies, what its table holds, and how it is opened, with errors that a user can act on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import lance
import pyarrow as pa
from lance.file import LanceFileSession
from numpy.typing import ArrayLike

from univert.core.errors import BadInputError, UnivertError, did_you_mean
from univert.search.query import check_unit_vectors

TABLE: Final = "images"
LOCK_FILE: Final = "writer.lock"
MAKE_ONE: Final = "make one with: univert index MODEL CATALOGUE INDEX"

FORMAT_KEY: Final = "univert.index_format"
FORMAT_VERSION: Final = "4"
MODEL_KEY: Final = "univert.model_fingerprint"
COMPATIBLE_KEY: Final = "univert.compatible_models"
"""Fingerprints of further models whose vectors lie in the same space, as a JSON list."""

CONTENT: Final = "content"
"""The column with a hash of what a vector was made from: the picture and its box; None where that is not known."""
TEXT_COLUMNS: Final = ("id", "vertical", "product", "brand", "style", "split", "source", "uri")

_IDS_AT_ONCE: Final = 1_000
"""As many names as a condition can hold."""
_VERSIONS: Final = f"{TABLE}.lance/_versions"
_PRIMARY_KEY: Final = {"lance-schema:unenforced-primary-key": "true"}
"""With a primary key the storage engine refuses one of two writers that add the same id at the same moment."""


class StorageError(UnivertError, OSError):
    """An object store that could not be read just now. It may be there again in a minute, so trying again can help."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """Where an index lies: a folder, or a prefix in an object store, which has storage options in place of a folder."""

    uri: str
    folder: Path | None
    # keys of an object store have no business in a message or a log
    storage_options: dict[str, str] | None = field(repr=False)

    @classmethod
    def of(cls, uri: str | Path | Location) -> Location:
        """The location that a path or an address names: a folder, or `s3://bucket/prefix`.

        Endpoint and region of an object store come from the usual `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`,
        `AWS_REGION` and `AWS_DEFAULT_REGION`. The storage engine looks for keys where AWS's own tools do.

        Raises:
            BadInputError: an address of another kind, or one without a bucket or a prefix.
        """
        if isinstance(uri, Location):
            return uri
        text = str(uri)
        if "://" not in text:
            folder = Path(uri).absolute()  # whoever opens it may go to another folder
            return cls(uri=str(folder), folder=folder, storage_options=None)
        parts = urlsplit(text)
        if parts.scheme != "s3":
            raise BadInputError(f"{text}: an index lies in a folder or at s3://bucket/prefix")
        prefix = parts.path.strip("/")
        if not (parts.netloc and prefix):
            raise BadInputError(f"{text}: give a bucket and a prefix, as in s3://bucket/shop.index")
        return cls(uri=f"s3://{parts.netloc}/{prefix}", folder=None, storage_options=_storage_options())

    @property
    def table_uri(self) -> str:
        """What a LanceDB client opens as table `images` of `uri`."""
        return f"{self.uri}/{TABLE}.lance"

    def holds_index(self) -> bool:
        """Whether there is a table of images."""
        if self.folder is not None:
            return any((self.folder / _VERSIONS).glob("*.manifest"))
        return bool(LanceFileSession(self.uri, storage_options=self.storage_options).list(_VERSIONS))

    def is_free(self) -> bool:
        """Whether an index can be started there: nothing is there, or what a writer left that was killed at once."""
        if self.folder is None or not self.folder.exists():
            return not self.holds_index()
        left_behind = {LOCK_FILE, f"{TABLE}.lance"}
        return not self.holds_index() and all(entry.name in left_behind for entry in self.folder.iterdir())

    def remove(self) -> None:
        """Remove the table of images, and the folder if it is one."""
        if self.folder is not None:
            shutil.rmtree(self.folder)
        else:
            lance.LanceDataset.drop(self.table_uri, storage_options=self.storage_options)


def unreadable(location: Location, error: Exception) -> UnivertError:
    """What to tell of an error that the storage engine met at an index.

    A folder is damaged and stays so: a `BadInputError`. An object store may come back: a `StorageError`.
    """
    cause = (str(error).splitlines() or [type(error).__name__])[0]
    if location.folder is not None:
        return BadInputError(f"{location.uri} is a damaged index ({cause}); {MAKE_ONE}")
    return StorageError(
        f"{location.uri} cannot be read ({cause}); check the bucket's name, the keys and the network, and try again"
    )


def open_table(location: Location, version: int | None = None) -> Any:
    """The table of an index at a version, by default its latest, published or not.

    Raises:
        BadInputError: there is nothing at the location, or it is not an index of the format this version reads.
        StorageError: the object store could not be read.
    """
    if location.folder is not None and not location.folder.exists():
        raise BadInputError(f"{location.uri}: no such index; {MAKE_ONE}")
    try:
        if not location.holds_index():
            raise BadInputError(f"{location.uri} is not an index; {MAKE_ONE}")
        # caches of its own, so that they go with the index
        session = lance.Session()  # type: ignore[attr-defined]
        dataset = lance.dataset(
            location.table_uri, version=version, storage_options=location.storage_options, session=session
        )
    except BadInputError:
        raise
    except Exception as error:  # the engine has no type of its own for what its storage met
        raise unreadable(location, error) from error
    found = metadata(dataset).get(FORMAT_KEY, "none")
    if found != FORMAT_VERSION:
        raise BadInputError(
            f"{location.uri}: index format {found} where this version reads {FORMAT_VERSION}; remove it and {MAKE_ONE}"
        )
    return dataset


def metadata(dataset: Any) -> dict[str, str]:
    """What the schema of a table records about the index."""
    return {key.decode(): value.decode() for key, value in (dataset.schema.metadata or {}).items()}


def index_schema(size: int) -> Any:
    """The Arrow schema of an index whose vectors have length `size`."""
    texts = [pa.field(name, pa.string()) for name in TEXT_COLUMNS if name != "id"]
    return pa.schema(
        [
            pa.field("vector", pa.list_(pa.float32(), size), nullable=False),
            pa.field("id", pa.string(), nullable=False, metadata=_PRIMARY_KEY),
            *texts,
            pa.field("image", pa.binary()),
            pa.field("box", pa.list_(pa.float64())),
            pa.field(CONTENT, pa.string()),
        ]
    )


def empty_table(size: int, model_fingerprint: str) -> pa.Table:
    """No rows, with the schema of an index and the record of the model that will make its vectors.

    Raises:
        BadInputError: a size below 1 or an empty fingerprint.
    """
    if size < 1:
        raise BadInputError(f"size must be at least 1, got {size}")
    if not model_fingerprint:
        raise BadInputError("model_fingerprint must not be empty; pass the fingerprint of the model")
    about = {FORMAT_KEY: FORMAT_VERSION, MODEL_KEY: model_fingerprint}
    return index_schema(size).with_metadata(about).empty_table()


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
            raise BadInputError(f"an index has no column {name!r}; {did_you_mean(name, schema.names[1:])}")
    for name in ("id", "vertical"):
        if name not in columns.column_names or columns[name].null_count:
            raise BadInputError(f"every row of an index needs {name}; fill the column {name!r}")
    arrays: list[Any] = [pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), size)]
    for column in list(schema)[1:]:
        present = column.name in columns.column_names
        arrays.append(columns[column.name].cast(column.type) if present else pa.nulls(len(array), column.type))
    return pa.table(arrays, schema=schema)


def id_conditions(ids: Sequence[str]) -> Iterator[str]:
    """SQL conditions that together select the rows with these ids.

    Examples:
        >>> list(id_conditions(["a", "L'Art"]))
        ["id IN ('a', 'L''Art')"]
    """
    for start in range(0, len(ids), _IDS_AT_ONCE):
        # SQL's only special character within single quotes is the single quote; a backslash stands for itself.
        texts = ("'" + name.replace("'", "''") + "'" for name in ids[start : start + _IDS_AT_ONCE])
        yield f"id IN ({', '.join(texts)})"


def rows_by_id(dataset: Any, ids: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """Some columns of those of the images that are there, in no order."""
    parts = [dataset.to_table(columns=list(columns), filter=condition) for condition in id_conditions(ids)]
    return pa.concat_tables([dataset.schema.empty_table().select(list(columns)), *parts])


def _storage_options() -> dict[str, str]:
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint:
        return {"aws_region": region}
    http = str(endpoint.startswith("http://")).lower()
    return {"aws_region": region, "aws_endpoint": endpoint, "allow_http": http}
