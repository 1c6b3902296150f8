"""What becomes of freed memory: kept for the next use, or given back to the system."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h of the GNU C library
_LARGEST_KEPT_BYTES = 1 << 30


def reuse_freed_memory(largest_bytes: int = _LARGEST_KEPT_BYTES) -> bool:
    """Make the C allocator of this process reuse large freed blocks.

    A network on the CPU allocates and frees tens of megabytes a layer. The GNU C library hands such blocks back
    to the system each time, and the page faults of getting them again take half of the running time. This is a
    setting of the whole process, so only our own command line calls it. May be called again with another limit.

    Args:
        largest_bytes: larger blocks go back to the system, and so does what is free beyond twice as much.

    Returns:
        whether the setting was made; false where the C library is another one (and nothing was changed).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = (
        (_M_MMAP_THRESHOLD, largest_bytes),
        (_M_TRIM_THRESHOLD, min(2 * largest_bytes, 2**31 - 1)),
        (_M_TOP_PAD, min(largest_bytes, 1 << 26)),
    )
    results = [mallopt(option, value) for option, value in settings]
    return all(result == 1 for result in results)


def return_freed_memory() -> bool:
    """Give what is freed but kept back to the system: after something large that does not come often.

    Returns:
        whether anything was given back; false, too, where the C library is another one.
    """
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (OSError, AttributeError):
        return False
