"""Reading an index that changes: a snapshot for every request, and a newer one as soon as it is published."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from univert.core.errors import UnivertError
from univert.search.index import Index
from univert.search.storage import Location, unreadable

Check = Callable[[Index], None]
"""Raises an error if a version must not be used."""

_log = logging.getLogger(__name__)


class IndexReader(AbstractContextManager["IndexReader"]):
    """The published version of an index, whichever it is by now.

    A thread of its own looks for a newer version, makes it ready, and only then puts it in the place of the old one.
    Who holds the old one goes on with it: a request that takes `current()` once is answered by one version, wholly.
    If looking fails, as when an object store is away for a while, or what was published is refused by `check`, the
    version at hand stays in use and the next look comes.

    Examples:
        >>> reader = IndexReader.open("shop.index")  # doctest: +SKIP
        >>> hits = reader.current().search(vector, model_fingerprint="a1b2")  # doctest: +SKIP
    """

    def __init__(self, location: Location, first: Index, refresh_s: float, check: Check | None) -> None:
        """Internal: use `IndexReader.open`."""
        self._location = location
        self._current = first
        self._check = check
        self._error: str | None = None
        self._looking = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look_again, args=(refresh_s,), daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, uri: str | Path | Location, refresh_s: float = 1.0, *, check: Check | None = None) -> IndexReader:
        """Open an index for as long as a service runs.

        Args:
            uri: a folder, or `s3://bucket/prefix`.
            refresh_s: how often to look for a newer version.
            check: raises an error for a version that must not be used, such as one of another model:
                `lambda index: index.check_model(fingerprint)`. The first version must pass; a later one that does
                not is passed over.

        Raises:
            BadInputError: no index there, nothing has been published in it, or it is damaged.
            StorageError: the object store could not be read.
            Exception: what `check` raises for the first version.
        """
        location = Location.of(uri)
        try:
            first = _ready(Index.open(location), check)
        except UnivertError:
            raise
        except (OSError, ValueError, RuntimeError) as error:  # as the engine tells of its storage
            raise unreadable(location, error) from error
        return cls(location, first, refresh_s, check)

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def error(self) -> str | None:
        """Why the last look for a newer version failed; None if it did not."""
        return self._error

    def current(self) -> Index:
        """The newest version that is ready. It never changes: take it once a request."""
        return self._current

    def refresh(self) -> bool:
        """Look for a newer version now, and wait for it; returns whether there was one.

        Raises:
            Exception: what the storage met, or what `check` raises for it; the version at hand stays.
        """
        with self._looking:
            version = self._current.published_now()
            if version == self._current.version:
                return False
            self._current = _ready(Index.open(self._location, version=version), self._check)
            return True

    def close(self) -> None:
        """Stop looking. The version at hand can be used on."""
        self._closed.set()
        self._thread.join()

    def _look_again(self, refresh_s: float) -> None:
        while not self._closed.wait(refresh_s):
            try:
                self.refresh()
                self._error = None
            except Exception as error:
                # Whatever the storage met, requests must go on with what there is.
                if self._error is None:
                    _log.warning("looking for a newer version of %s failed: %s", self._location.uri, error)
                self._error = str(error)


def _ready(index: Index, check: Check | None) -> Index:
    """A version that passed the check and needs not be waited for."""
    if check is not None:
        check(index)
    index.warm()
    return index
