"""Who may ask, and what browsers are told: API keys, headers, the content security policy."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

OPEN_PATHS: Final = ("/", "/health", "/ready", "/openapi.json")
"""What needs no key: the page and its files, what a load balancer asks, and the documentation."""

OPEN_PREFIXES: Final = ("/static/", "/problems/")

PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
API_POLICY: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

SECURITY_HEADERS: Final[Mapping[bytes, bytes]] = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"permissions-policy": b"camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
    b"content-security-policy": API_POLICY.encode(),
}

_KEY_BYTES: Final = 32


def new_key(name: str) -> tuple[str, str]:
    """A new API key.

    Args:
        name: who it is for; letters, digits, `.`, `_` and `-`.

    Returns:
        the key, to be handed over once, and the line `name:sha256` for the settings. 256 random bits cannot be
        guessed, so a plain hash protects them.
    """
    key = secrets.token_urlsafe(_KEY_BYTES)
    return key, f"{name}:{_digest(key)}"


class ApiKeys:
    """The keys that are accepted, as hashes.

    Args:
        lines: `name:sha256`, one a key; none means that no key is needed.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self._hashes = [tuple(line.split(":", 1)) for line in lines]
        self.names = [name for name, _ in self._hashes]

    def __bool__(self) -> bool:
        """Whether keys are needed."""
        return bool(self._hashes)

    def name_of(self, headers: Mapping[bytes, bytes]) -> str | None:
        """The name of the key that a request carries; None if it carries none that is accepted.

        Every key is compared, and each in constant time, so that time tells nothing about them.
        """
        given = _given_key(headers)
        if given is None:
            return None
        digest = _digest(given)
        found = None
        for name, expected in self._hashes:
            if hmac.compare_digest(digest, expected):
                found = name
        return found


def is_open(path: str) -> bool:
    """Whether a path needs no key and counts towards no rate."""
    return path in OPEN_PATHS or path.startswith(OPEN_PREFIXES)


def _given_key(headers: Mapping[bytes, bytes]) -> str | None:
    if key := headers.get(b"x-api-key"):
        return key.decode("latin-1")
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token else None


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
