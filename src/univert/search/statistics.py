"""What an index holds, in figures."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from univert.search.lance_open import open_table
from univert.search.lance_schema import COMPATIBLE_KEY, MODEL_KEY
from univert.search.lance_structures import vector_index_state
from univert.search.place import Place
from univert.search.publications import Publication, publications, published_version


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexStatistics:
    """An index in figures.

    Attributes:
        uri: where it lies.
        size: length of its vectors.
        model_fingerprint: of the model that made them.
        compatible_models: of further models whose queries are answered.
        images: in the working copy, what the next publication would show.
        published_images: what readers see; None before the first publication.
        published_version: the version that readers answer from; None before the first publication.
        unpublished_changes: whether the working copy is a later one.
        publications: versions that can be rolled back to, oldest first.
        verticals: images in each.
        approximate: whether there is a vector index.
        unindexed_images: those that each search compares one by one besides the vector index.
        files: data files.
        deleted_rows: rows that are deleted and still take room.
        bytes: room on disk, old versions included; None in an object store.
    """

    uri: str
    size: int
    model_fingerprint: str
    compatible_models: list[str]
    images: int
    published_images: int | None
    published_version: int | None
    unpublished_changes: bool
    publications: list[Publication]
    verticals: dict[str, int]
    approximate: bool
    unindexed_images: int
    files: int
    deleted_rows: int
    bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values, for JSON."""
        return dataclasses.asdict(self)


def read_statistics(uri: str | Path | Place) -> IndexStatistics:
    """The figures of an index; nothing is changed and a writer may be at work.

    Args:
        uri: a folder, or `s3://bucket/prefix`.

    Raises:
        BadInputError: no index there.
    """
    place = Place.of(uri)
    return table_statistics(open_table(place), place)


def table_statistics(dataset: Any, place: Place) -> IndexStatistics:
    """The figures of a table of images.

    Args:
        dataset: its latest version.
        place: where it lies.
    """
    metadata = dataset.schema.metadata or {}
    published = published_version(dataset)
    state = vector_index_state(dataset)
    images = dataset.count_rows()
    fragments = dataset.get_fragments()
    counted = pc.value_counts(dataset.to_table(columns=["vertical"])["vertical"]).to_pylist()
    return IndexStatistics(
        uri=place.uri,
        size=dataset.schema.field("vector").type.list_size,
        model_fingerprint=metadata[MODEL_KEY.encode()].decode(),
        compatible_models=json.loads(metadata.get(COMPATIBLE_KEY.encode(), b"[]")),
        images=images,
        published_images=None if published is None else dataset.checkout_version(published).count_rows(),
        published_version=published,
        unpublished_changes=published != dataset.version,
        publications=publications(dataset),
        verticals=dict(sorted((entry["values"], entry["counts"]) for entry in counted)),
        approximate=state is not None,
        unindexed_images=0 if state is None else images - state.indexed_rows,
        files=len(fragments),
        deleted_rows=sum(fragment.num_deletions for fragment in fragments),
        bytes=_bytes(place),
    )


def _bytes(place: Place) -> int | None:
    if place.folder is None:
        return None
    total = 0
    for file in place.folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a writer may be cleaning up
            total += file.stat().st_size if file.is_file() else 0
    return total
