"""A batch that fails, fails for everybody in it: each gets an error of its own."""

from __future__ import annotations

import copy


def own_copy(error: Exception) -> Exception:
    """A copy of an error for one of those who wait: raising one object in several tasks mixes their tracebacks.

    Args:
        error: what the work raised.

    Returns:
        an error of the same kind that says the same, caused by `error`; a `RuntimeError` where it cannot be copied.
    """
    try:
        own = copy.copy(error)
    except Exception:  # its constructor may take anything
        own = RuntimeError(repr(error))
    own.__cause__ = error
    return own
