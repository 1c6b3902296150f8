"""The socket that the service listens on, and what is wrong where it cannot be had."""

from __future__ import annotations

import errno
import logging
import socket
from typing import Final

from univert.core.errors import BadInputError, UnivertError

_LOG: Final = logging.getLogger("uvicorn.error")


def bind(host: str, port: int) -> socket.socket:
    """Take an address.

    Args:
        host: an address of this machine, or a name of it.
        port: the port; 0 takes any that is free, and the log says which.

    Returns:
        the socket, not yet listening: who connects before the service is ready is refused.

    Raises:
        BadInputError: the address can never be had: it is not this machine's, or not this user's to take.
        UnivertError: it cannot be had just now: something else listens there.
    """
    is_v6 = ":" in host
    shown = f"[{host}]" if is_v6 else host
    taken = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
    except OSError as error:
        taken.close()
        raise _explained(error, host, f"{shown}:{port}") from None
    _LOG.info("Uvicorn running on http://%s:%d (Press CTRL+C to quit)", shown, taken.getsockname()[1])
    return taken


def _explained(error: OSError, host: str, address: str) -> UnivertError:
    if isinstance(error, socket.gaierror):
        if error.errno == socket.EAI_AGAIN:
            return UnivertError(f"host {host}: its address could not be looked up just now; is the network up?")
        return BadInputError(f"host must be an address of this machine or its name, got {host!r}: {error.strerror}")
    if error.errno == errno.EADDRINUSE:
        return UnivertError(
            f"{address} is in use by another process (ss -ltnp shows which): stop it, or give another --port"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return BadInputError(
            f"host must be an address of this machine, got {host!r}; 0.0.0.0 listens on all that it has"
        )
    if error.errno == errno.EACCES:
        return BadInputError(
            f"{address}: this user may not listen on ports so low; give a --port from 1024 on, behind a proxy"
        )
    return UnivertError(f"{address} cannot be listened on: {error.strerror}")
