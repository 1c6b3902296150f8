"""How often each client may ask: token buckets that the worker processes share through one small file."""

from __future__ import annotations

import fcntl
import hashlib
import math
import mmap
import os
import struct
import tempfile
import time
from pathlib import Path
from typing import Final

FILE_VARIABLE: Final = "UNIVERT_RATE_FILE"
"""The shared file; the command makes it for its workers. Without it a worker counts for itself."""

_SLOTS: Final = 8192
_SLOT: Final = struct.Struct("<dd")  # tokens, when they were counted (monotonic clock, one for the machine)


class RateLimits:
    """A token bucket for each client: `burst` requests at once, then `rate_per_s` a second.

    Clients share `_SLOTS` buckets by a hash of their name, so memory does not grow with the number of clients;
    two that fall into one share its rate.

    Args:
        rate_per_s: tokens that come back each second.
        burst: tokens of a full bucket.
        path: the file that processes share; None for this process alone.
    """

    def __init__(self, rate_per_s: float, burst: int, path: Path | None = None) -> None:
        self._rate = rate_per_s
        self._burst = float(burst)
        if path is None:
            descriptor, name = tempfile.mkstemp(prefix="univert-rates-")
            Path(name).unlink()
        else:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(descriptor, _SLOTS * _SLOT.size)
        self._descriptor = descriptor
        self._table = mmap.mmap(descriptor, _SLOTS * _SLOT.size)
        self._salt = b"" if path is None else path.name.encode()

    def take(self, client: str, tokens: float = 1.0) -> float:
        """Count a request.

        Args:
            client: a key's name or an address.
            tokens: what it costs.

        Returns:
            0 if it may go on; otherwise the seconds until the next one may.
        """
        place = self._place(client)
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, _SLOT.size, place)
        try:
            held, counted_s = _SLOT.unpack_from(self._table, place)
            now = time.monotonic()
            fresh = counted_s == 0.0 or counted_s > now  # never used, or written before the machine restarted
            held = self._burst if fresh else min(self._burst, held + (now - counted_s) * self._rate)
            allowed = held >= tokens
            _SLOT.pack_into(self._table, place, held - tokens if allowed else held, now)
            return 0.0 if allowed else (tokens - held) / self._rate
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, _SLOT.size, place)

    def close(self) -> None:
        """Let go of the file."""
        self._table.close()
        os.close(self._descriptor)

    def _place(self, client: str) -> int:
        digest = hashlib.blake2b(client.encode("utf-8", "replace"), digest_size=8, key=self._salt[:64]).digest()
        return int.from_bytes(digest, "little") % _SLOTS * _SLOT.size


def retry_after(seconds: float) -> int:
    """Whole seconds for a Retry-After header."""
    return max(1, math.ceil(seconds))
