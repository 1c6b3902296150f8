"""Which versions of an index are published: named references (tags) that move in one step; and an index in figures.

The tag `published` names the version that readers answer from. Every version that was published has a tag of its own,
`published-VERSION`: what has a tag is never cleaned up, so readers that still hold it go on undisturbed, and it can be
rolled back to. That tag comes after the move of `published`: what has it was published, even if the writer is killed
between the two.
"""

from __future__ import annotations

import datetime
import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow.compute as pc

from univert.core.errors import BadInputError
from univert.search.storage import COMPATIBLE_KEY, MODEL_KEY, Location, metadata, open_table
from univert.search.vector_index import has_vector_index

KEPT_VERSIONS: Final = 5
READERS_GRACE_S = 600.0
"""Readers look for a new version about once a second; a version is kept ten minutes after it was replaced."""

PUBLISHED: Final = "published"
REBUILDING_KEY: Final = "univert.rebuilding"
"""Set while an index that was emptied is being filled again: half of it must not be taken for the whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedVersion:
    """The number of a version that can be rolled back to, and when it was written."""

    version: int
    written_unix_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexStats:
    """An index in figures.

    Attributes:
        uri: where it lies.
        size: length of its vectors.
        model_fingerprint: of the model that made them.
        compatible_models: fingerprints of further models whose queries are answered.
        images: in the working copy, what the next publication would show.
        published_images: what readers see; None before the first publication.
        published_version: the version that readers answer from; None before the first publication.
        unpublished_changes: whether the working copy is a later one.
        versions: those that can be rolled back to, oldest first.
        verticals: images in each.
        approximate: whether there is a vector index.
    """

    uri: str
    size: int
    model_fingerprint: str
    compatible_models: list[str]
    images: int
    published_images: int | None
    published_version: int | None
    unpublished_changes: bool
    versions: list[PublishedVersion]
    verticals: dict[str, int]
    approximate: bool


def published_version(dataset: Any) -> int | None:
    """The version that readers answer from; None before the first publication."""
    tag = dataset.tags.list().get(PUBLISHED)
    return None if tag is None else int(tag["version"])


def open_published(location: Location, version: int | None = None) -> Any:
    """The table of an index at a version that was published, by default the one that is published now.

    Raises:
        BadInputError: as `univert.search.storage.open_table`; nothing was published yet, or that version is not there.
    """
    dataset = open_table(location)
    if version is None:
        version = published_version(dataset)
    if version is None:
        publish = ", or publish the part that is there with: univert index publish INDEX"
        raise BadInputError(
            f"{location.uri} has no published version yet: it is being made, or that was interrupted; run the same "
            f"univert index command again{'' if is_rebuilding(dataset) else publish}"
        )
    try:
        return dataset if version == dataset.version else dataset.checkout_version(version)
    except (ValueError, OSError) as error:
        raise BadInputError(
            f"{location.uri} has no version {version}; univert index versions INDEX lists those it has"
        ) from error


def published_versions(dataset: Any) -> list[PublishedVersion]:
    """The versions that are kept, oldest first, with the one that is published."""
    # A writer that was killed may have left the published one without a tag of its own.
    kept = {int(tag["version"]) for name, tag in dataset.tags.list().items() if name.startswith(PUBLISHED)}
    return [
        PublishedVersion(version=entry["version"], written_unix_s=entry["timestamp"].timestamp())
        for entry in dataset.versions()
        if entry["version"] in kept
    ]


def publish_latest(dataset: Any) -> int:
    """Publish a table at its latest version, in one step for every reader, and remove what nobody can be reading."""
    before, version = published_version(dataset), int(dataset.version)
    if before == version:
        return version
    if before is None:
        dataset.tags.create(PUBLISHED, version)
    else:
        _keep(dataset, before)
        dataset.tags.update(PUBLISHED, version)
    _keep(dataset, version)
    # What was replaced a while ago is let go, but for the last few.
    versions = published_versions(dataset)
    for entry, successor in list(itertools.pairwise(versions))[: -KEPT_VERSIONS + 1]:
        if successor.written_unix_s < time.time() - READERS_GRACE_S:
            dataset.tags.delete(_tag(entry.version))
    # all but the latest version and those with a tag
    dataset.cleanup_old_versions(datetime.timedelta(0), error_if_tagged_old_versions=False)
    return version


def is_rebuilding(dataset: Any) -> bool:
    """Whether a table was emptied to be made anew, and is not whole again."""
    return REBUILDING_KEY in metadata(dataset)


def read_stats(uri: str | Path | Location) -> IndexStats:
    """The figures of an index in a folder or at `s3://bucket/prefix`; a writer may be at work.

    Raises:
        BadInputError: no index there.
    """
    location = Location.of(uri)
    dataset = open_table(location)
    about, published = metadata(dataset), published_version(dataset)
    counted = pc.value_counts(dataset.to_table(columns=["vertical"])["vertical"]).to_pylist()
    return IndexStats(
        uri=location.uri,
        size=dataset.schema.field("vector").type.list_size,
        model_fingerprint=about[MODEL_KEY],
        compatible_models=json.loads(about.get(COMPATIBLE_KEY, "[]")),
        images=dataset.count_rows(),
        published_images=None if published is None else dataset.checkout_version(published).count_rows(),
        published_version=published,
        unpublished_changes=published != dataset.version,
        versions=published_versions(dataset),
        verticals=dict(sorted((entry["values"], entry["counts"]) for entry in counted)),
        approximate=has_vector_index(dataset),
    )


def _keep(dataset: Any, version: int) -> None:
    if _tag(version) not in dataset.tags.list():
        dataset.tags.create(_tag(version), version)


def _tag(version: int) -> str:
    return f"{PUBLISHED}-{version}"
