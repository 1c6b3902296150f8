"""Opening the table of an index, with errors that a user can act on."""

from __future__ import annotations

from typing import Any, Final

import lance

from univert.core.errors import BadInputError
from univert.search.lance_schema import FORMAT_KEY, FORMAT_VERSION, OLD_FORMAT
from univert.search.place import Place
from univert.search.publications import published_version

MAKE_ONE: Final = "make one with: univert index MODEL CATALOGUE INDEX"


def open_table(place: Place) -> Any:
    """The table of an index at its latest version, published or not.

    Raises:
        BadInputError: there is nothing at the place, or it is not an index of a format this version reads.
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
        # The engine raises whatever its storage layer met: to the user it is one thing.
        cause = str(error).splitlines()[0]
        what = "is a damaged index" if place.folder is not None else "cannot be read"
        raise BadInputError(f"{place.uri} {what} ({cause}); {MAKE_ONE}") from error
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
        raise BadInputError(
            f"{place.uri} has no published version yet: it is being made, or that was interrupted; run the same "
            "univert index command again, or publish what is there with: univert index-admin publish INDEX"
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
