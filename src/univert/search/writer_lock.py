"""One writer at a time: a locked file in a folder, a lease that is renewed in an object store."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Any, Final, Protocol

import lance
import pyarrow as pa

from univert.core.errors import BadInputError
from univert.search.place import LOCK_FILE, Place

try:
    import fcntl
except ImportError:  # Windows: a lease does there, too
    fcntl = None  # type: ignore[assignment]

LEASE_S: Final = 60.0
_LEASE_TABLE: Final = "writer.lance"
_LEASE_KEY: Final = "univert.writer"


class WriterLock(Protocol):
    """The right to write to an index."""

    def check(self) -> None:
        """Raise BadInputError if the right has been lost."""
        ...

    def release(self) -> None:
        """Let others write; done twice, it does nothing."""
        ...


def lock_for_writing(place: Place) -> WriterLock:
    """Become the writer of an index.

    A process that ends, however it ends, gives a folder free at once, and an object store within a minute.

    Raises:
        BadInputError: another process is writing; the message says which.
    """
    if place.folder is not None and fcntl is not None:
        return FileLock(place.folder / LOCK_FILE, place.uri)
    return Lease(place)


class FileLock:
    """A file that the operating system keeps locked as long as the process lives.

    Raises:
        BadInputError: another process holds it.
    """

    def __init__(self, path: Path, index: str) -> None:
        self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._descriptor, 1_000, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            self._descriptor = None
            raise BadInputError(
                f"{index} is being written by {holder or 'another process'}; wait until it is done, or end it"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, _who().encode(), 0)

    def check(self) -> None:
        """A locked file is not lost."""

    def release(self) -> None:
        """Let others write; done twice, it does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Lease:
    """An entry beside the index that says who writes and until when; renewed in the background.

    Two that come at the same moment are told apart by the storage engine, which lets only one of two changes to the
    same entry pass. The clocks of the machines must agree within a few seconds.

    Args:
        place: of the index.
        lease_s: how long others wait for a writer that was killed.

    Raises:
        BadInputError: another writer holds it.
    """

    def __init__(self, place: Place, lease_s: float = LEASE_S) -> None:
        self._place = place
        self._lease_s = lease_s
        self._token = uuid.uuid4().hex
        self._lost: str | None = None
        self._released = threading.Event()
        self._table = self._open()
        self._renewed = time.monotonic()
        self._take()
        self._thread = threading.Thread(target=self._renew, name="univert-writer-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Refuse to write on without the lease.

        Raises:
            BadInputError: it could not be renewed in time, or another writer took it.
        """
        if self._lost is None and time.monotonic() - self._renewed > self._lease_s:
            self._lost = "it could not be renewed in time"
        if self._lost is not None:
            raise BadInputError(
                f"{self._place.uri}: the right to write was lost ({self._lost}); run the same command again"
            )

    def release(self) -> None:
        """Let others write; done twice, it does nothing."""
        if self._released.is_set():
            return
        self._released.set()
        self._thread.join()
        with contextlib.suppress(OSError, ValueError):
            if self._lost is None:
                self._table.update_config({_LEASE_KEY: "{}"})

    def _open(self) -> Any:
        uri, options = f"{self._place.uri}/{_LEASE_TABLE}", self._place.storage_options
        for _ in range(2):
            try:
                return lance.dataset(uri, storage_options=options)
            except ValueError as error:
                if "not found" not in str(error):
                    raise
            # two may start it at the same moment: then it is there the second time
            with contextlib.suppress(OSError):
                nothing = pa.table({"none": pa.nulls(0)})
                return lance.write_dataset(nothing, uri, mode="create", storage_options=options)
        return lance.dataset(uri, storage_options=options)

    def _take(self) -> None:
        held = json.loads(self._table.config().get(_LEASE_KEY, "{}"))
        left_s = held.get("until_unix_s", 0) - time.time()
        if left_s <= 0:
            try:
                self._write()
            except OSError:
                held, left_s = {"who": "another process"}, self._lease_s
            else:
                return
        raise BadInputError(
            f"{self._place.uri} is being written by {held['who']}; wait until it is done, or, if it was killed, "
            f"{left_s:.0f} s until its lease ends"
        )

    def _write(self) -> None:
        # The entry ends so long after this moment, however long the store takes to write it.
        begun = time.monotonic()
        until = time.time() + self._lease_s
        entry = {"token": self._token, "who": _who(), "until_unix_s": until}
        self._table.update_config({_LEASE_KEY: json.dumps(entry)})
        self._renewed = begun

    def _renew(self) -> None:
        while not self._released.wait(self._lease_s / 4):
            try:
                self._table.checkout_latest()
                holder = json.loads(self._table.config().get(_LEASE_KEY, "{}"))
                if holder.get("token") != self._token:
                    self._lost = f"taken by {holder.get('who', 'another process')}"
                    return
                self._write()
            except (OSError, ValueError):
                continue  # the store may be back in time; `check` looks at the clock


def _who() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
