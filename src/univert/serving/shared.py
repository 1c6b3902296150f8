"""What the workers of a service share through files: how often each client has asked, and what they count."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest, values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

_BUCKETS: Final = 8192
_BUCKET: Final = struct.Struct("<dd")  # tokens, when they were counted (monotonic clock, one for the machine)
_SALT_BYTES: Final = 32
_FILE_BYTES: Final = _SALT_BYTES + _BUCKETS * _BUCKET.size
_COUNTS_BYTES: Final = 1 << 20
"""Of each kind of metric in a worker; all that there are take a tenth of it."""


def make_rate_file(path: Path) -> None:
    """Make the file through which the processes of a service share their clients' rates.

    Its salt is random, so that nobody can work out which clients share a bucket. All of it is taken from the disk at
    once: a page of it that could not be had later would end the process that touched it.

    Raises:
        OSError: there is no room for it.
    """
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, _FILE_BYTES)
        file.write(os.urandom(_SALT_BYTES))


class RateLimits:
    """A token bucket for each client: `burst` requests at once, then `rate_per_s` a second.

    Clients share `_BUCKETS` buckets by a hash of their name, so memory does not grow with the number of clients;
    two that fall into one share its rate. Processes share the buckets through a small file.

    Args:
        rate_per_s: tokens that come back each second.
        burst: tokens of a full bucket.
        path: the file that processes share, see `make_rate_file`; None for this process alone.
    """

    def __init__(self, rate_per_s: float, burst: int, path: Path | None = None) -> None:
        self._rate = rate_per_s
        self._burst = float(burst)
        self._file = path.open("r+b") if path is not None else None
        self._table = mmap.mmap(self._file.fileno() if self._file else -1, _FILE_BYTES)
        self._salt = self._table[:_SALT_BYTES] if self._file else os.urandom(_SALT_BYTES)

    def take(self, client: str, tokens: float = 1.0) -> float:
        """Count a request of a client, a key's name or an address: 0 if it may go on, else the seconds to wait."""
        digest = hashlib.blake2b(client.encode("utf-8", "replace"), digest_size=8, key=self._salt).digest()
        place = _SALT_BYTES + int.from_bytes(digest, "little") % _BUCKETS * _BUCKET.size
        self._lock(fcntl.LOCK_EX, place)
        try:
            held, counted_s = _BUCKET.unpack_from(self._table, place)
            now = time.monotonic()
            fresh = counted_s == 0.0 or counted_s > now  # never used, or written before the machine restarted
            held = self._burst if fresh else min(self._burst, held + (now - counted_s) * self._rate)
            allowed = held >= tokens
            _BUCKET.pack_into(self._table, place, held - tokens if allowed else held, now)
            return 0.0 if allowed else (tokens - held) / self._rate
        finally:
            self._lock(fcntl.LOCK_UN, place)

    def close(self) -> None:
        """Let go of the file."""
        self._table.close()
        if self._file:
            self._file.close()

    def _lock(self, how: int, place: int) -> None:
        if self._file:
            fcntl.lockf(self._file, how, _BUCKET.size, place)


def take_room(folder: Path) -> str | None:
    """Take the room for this process's counts from the disk, all at once.

    The counts lie in files that are mapped into memory. Were the disk full when one of them grows, the process would be
    killed.

    Returns:
        why there is no room, so that the process counts for itself; None if all is well.
    """
    try:
        for kind in ("counter", "histogram", "gauge_livesum", "gauge_livemin"):
            with (folder / f"{kind}_{os.getpid()}.db").open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, _COUNTS_BYTES)
    except OSError as error:
        for begun in folder.glob(f"*_{os.getpid()}.db"):
            begun.unlink()
        values.ValueClass = values.MutexValue
        return str(error)
    return None


def counts_of_all(folder: Path) -> bytes:
    """The text that Prometheus scrapes, over all worker processes."""
    for file in folder.glob("gauge_live*.db"):  # gauges of workers that were killed; their counts stay
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid, path=str(folder))
    everyone = CollectorRegistry()
    MultiProcessCollector(everyone, path=str(folder))
    everyone.register(_Processes({int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_live*")}))
    return generate_latest(everyone)


class _Processes(Collector):
    """Memory, processor time and open files of each worker."""

    def __init__(self, pids: set[int]) -> None:
        self._pids = sorted(pids)

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for pid in self._pids:
            for found in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                for sample in found.samples:
                    family.add_sample(sample.name, {"process": str(pid)}, sample.value)
        yield from families.values()
