"""Which versions of an index are published: named references (tags) that move in one step.

The tag `published` names the version that readers answer from. Every version that was published keeps a tag of its own,
`publication-VERSION-SECONDS`, with the time when it was last the published one: what has a tag is never cleaned up,
so readers that still hold it go on undisturbed, and it can be rolled back to. That tag comes after the move of
`published`: what has it was published, even if the writer is killed between the two.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from univert.search.lance_structures import clean_up

KEPT_PUBLICATIONS: Final = 5
READERS_GRACE_S = 600.0
"""Readers look for a new version about once a second; a version is kept ten minutes after it was replaced."""

_CLEAN_EVERY_VERSIONS: Final = 64
PUBLISHED: Final = "published"
_PREFIX: Final = "publication"


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """A version that is or was published and can be rolled back to.

    Attributes:
        version: its number.
        served_until_unix_s: when it was last known to be the published one.
    """

    version: int
    served_until_unix_s: float


def published_version(dataset: Any) -> int | None:
    """The version that readers answer from; None before the first publication."""
    try:
        return int(dataset.tags.get_version(PUBLISHED))
    except ValueError as error:
        if "not found" not in str(error).lower():
            raise
        return None


def publications(dataset: Any) -> list[Publication]:
    """The versions that are kept, oldest first, with the one that is published."""
    latest: dict[int, float] = {}
    for version, served_until_s in _kept(dataset).values():
        latest[version] = max(served_until_s, latest.get(version, 0.0))
    current = published_version(dataset)
    if current is not None:  # a writer that was killed may have left it without a tag of its own
        latest.setdefault(current, time.time())
    return [Publication(version=v, served_until_unix_s=s) for v, s in sorted(latest.items())]


def publish_latest(dataset: Any) -> int:
    """Make the latest version the published one; now and then, remove versions that nobody can be reading.

    Args:
        dataset: the table of images, at its latest version.

    Returns:
        that version.
    """
    before, version = published_version(dataset), int(dataset.version)
    set_published(dataset, version)
    if before is None or version // _CLEAN_EVERY_VERSIONS != before // _CLEAN_EVERY_VERSIONS:
        forget_and_clean(dataset)
    return version


def forget_and_clean(dataset: Any) -> None:
    """Remove all versions but the latest, those published last, and those that readers may still have."""
    forget_old(dataset, keep=KEPT_PUBLICATIONS, grace_s=READERS_GRACE_S)
    clean_up(dataset)


def set_published(dataset: Any, version: int) -> None:
    """Make a version the published one, in one step for every reader.

    Args:
        dataset: the table of images.
        version: any version that is still there.
    """
    before = published_version(dataset)
    if before == version:
        return
    if before is None:
        dataset.tags.create(PUBLISHED, version)
    else:
        _keep(dataset, before)  # as long as it is the published one: readers will have it for a while
        dataset.tags.update(PUBLISHED, version)
    _keep(dataset, version)


def forget_old(dataset: Any, *, keep: int, grace_s: float) -> None:
    """Take the tags from versions that nobody can be reading any more.

    Args:
        dataset: the table of images.
        keep: this many of those published last stay in any case.
        grace_s: and those that were published within so many seconds.
    """
    current = published_version(dataset)
    kept = _kept(dataset)
    served = {entry.version: entry.served_until_unix_s for entry in publications(dataset)}
    newest = sorted(served, key=lambda version: (served[version], version))[-keep:]
    limit = time.time() - grace_s
    for name, (version, served_until_s) in kept.items():
        needed = version == current or version in newest or served[version] >= limit
        if not needed or served_until_s < served[version]:
            dataset.tags.delete(name)


def _keep(dataset: Any, version: int) -> None:
    name = f"{_PREFIX}-{version}-{int(time.time())}"
    if name not in dataset.tags.list():
        dataset.tags.create(name, version)


def _kept(dataset: Any) -> dict[str, tuple[int, float]]:
    """Tag -> (version, seconds)."""
    kept: dict[str, tuple[int, float]] = {}
    for name, tag in dataset.tags.list().items():
        parts = name.split("-")
        if len(parts) == 3 and parts[0] == _PREFIX:
            kept[name] = int(tag["version"]), float(parts[2])
    return kept
