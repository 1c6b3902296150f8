"""Opening the table of an index, with errors that a user can act on."""

from __future__ import annotations

from typing import Any, Final

import lance

from univert.core.errors import BadInputError, UnivertError
from univert.search.lance_schema import FORMAT_KEY, FORMAT_VERSION, OLD_FORMAT
from univert.search.place import Place
from univert.search.publications import published_version
from univert.search.rebuilding import is_rebuilding

MAKE_ONE: Final = "make one with: univert index MODEL CATALOGUE INDEX"


class StorageError(UnivertError, OSError):
    """An object store that could not be read just now. It may be there again in a minute, so trying again can help."""


def unreadable(place: Place, error: Exception) -> UnivertError:
    """What to tell of an index whose storage met an error.

    Args:
        place: where the index lies.
        error: as the engine raised it; whatever its storage layer met, to the user it is one thing.

    Returns:
        a `BadInputError` for what stays so: a folder that is damaged, a bucket that does not exist; a `StorageError`
        for an object store that does not answer, or refuses to.
    """
    cause = (str(error).splitlines() or [type(error).__name__])[0]
    if place.folder is not None:
        return BadInputError(f"{place.uri} is a damaged index ({cause}); {MAKE_ONE}")
    if "404 Not Found" in cause:
        return BadInputError(f"{place.uri} cannot be read ({cause}); check the bucket's name, or {MAKE_ONE}")
    return StorageError(
        f"{place.uri} cannot be read ({cause}); check the address, the keys and the network, and try again"
    )


def open_table(place: Place) -> Any:
    """The table of an index at its latest version, published or not.

    Raises:
        BadInputError: there is nothing at the place, or it is not an index of a format this version reads.
        StorageError: the object store could not be read.
    """
    if place.folder is not None and not place.folder.exists():
        raise BadInputError(f"{place.uri}: no such index; {MAKE_ONE}")
    try:
        if not place.holds_index():
            raise BadInputError(f"{place.uri} is not an index; {MAKE_ONE}")
        # caches of its own, so that they go with the index
        dataset = place.dataset(session=lance.Session())  # type: ignore[attr-defined]
        found = table_format(dataset)
    except BadInputError:
        raise
    except Exception as error:
        raise unreadable(place, error) from error
    if found not in (FORMAT_VERSION, OLD_FORMAT):
        raise BadInputError(
            f"{place.uri}: index format {found} where this version reads {OLD_FORMAT} and {FORMAT_VERSION}; {MAKE_ONE}"
        )
    return dataset


def open_published(place: Place, version: int | None = None) -> Any:
    """The table of an index at a version that was published.

    Args:
        place: where the index lies.
        version: by default the published one; an index of the old format has only its latest.

    Raises:
        BadInputError: as `open_table`; nothing was published yet, or that version is not there.
    """
    dataset = open_table(place)
    if version is None:
        version = published_version(dataset)
    if version is None:
        if table_format(dataset) == OLD_FORMAT:
            return dataset
        publish = ", or publish the part that is there with: univert index-admin publish INDEX"
        raise BadInputError(
            f"{place.uri} has no published version yet: it is being made, or that was interrupted; run the same "
            f"univert index command again{'' if is_rebuilding(dataset) else publish}"
        )
    try:
        return dataset if version == dataset.version else dataset.checkout_version(version)
    except (ValueError, OSError) as error:
        raise BadInputError(
            f"{place.uri} has no version {version}; univert index-admin statistics INDEX lists those it has"
        ) from error


def table_format(dataset: Any) -> str:
    """The format that a table says it has."""
    found: bytes = (dataset.schema.metadata or {}).get(FORMAT_KEY.encode(), b"none")
    return found.decode()
