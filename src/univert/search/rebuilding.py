"""The mark on a working copy that is being made anew: half of it must not be taken for the whole, and published."""

from __future__ import annotations

from typing import Any

from univert.core.errors import BadInputError
from univert.search.lance_schema import REBUILDING_KEY
from univert.search.publications import published_version


def is_rebuilding(dataset: Any) -> bool:
    """Whether a table was emptied to be made anew, and is not whole again."""
    return bool((dataset.schema.metadata or {}).get(REBUILDING_KEY.encode()))


def finish_rebuilding(dataset: Any) -> None:
    """Take the mark away: the table is whole."""
    if is_rebuilding(dataset):
        dataset.update_schema_metadata({REBUILDING_KEY: None})


def check_whole(dataset: Any, uri: str) -> None:
    """Refuse a table that was left half-way.

    Args:
        dataset: the table of images, at its latest version.
        uri: where the index lies, for the message.

    Raises:
        BadInputError: `is_rebuilding`; the message says how to go on and how to go back.
    """
    if not is_rebuilding(dataset):
        return
    version = published_version(dataset)
    back = f", or go back to what is published with: univert index-admin roll-back INDEX {version}"
    raise BadInputError(
        f"{uri} is being made anew, and that was interrupted: it holds {dataset.count_rows():,} images so far; run the "
        f"same univert index command with --overwrite again{'' if version is None else back}"
    )
