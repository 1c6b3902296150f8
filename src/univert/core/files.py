"""Files that are either whole or absent: atomic writes, published folders, content fingerprints."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from univert.core.errors import BadInputError

_LONGEST_NAME = 120
"""Bytes: file systems end at 255, and records and temporary files put more before and after it."""


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new one; its folder is created.

    Raises:
        OSError: the disk is full or not writable; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_hidden(path))
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_free(target: Path, *, overwrite: bool) -> None:
    """Refuse to replace what is there already, before work is spent.

    Raises:
        BadInputError: `target` exists, is no empty folder, and `overwrite` is false.
    """
    taken = any(target.iterdir()) if target.is_dir() else target.exists()
    if taken and not overwrite:
        raise BadInputError(f"{target} exists already; pass --overwrite to replace it, or choose another path")


@contextlib.contextmanager
def publishing(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Build a folder in a temporary place beside `target` and move it there when the block succeeds.

    Args:
        target: the folder to publish.
        overwrite: replace an existing folder; without it a `target` that is not empty is refused at once.

    Yields:
        an empty folder to fill. If the block raises, it is removed and `target` stays as it was.

    Raises:
        BadInputError: see `check_free`.
    """
    check_free(target, overwrite=overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=_hidden(target)))
    try:
        yield temporary
        temporary.chmod(0o755)
        if target.exists():
            retired = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{_hidden(target)}old."))
            target.replace(retired / "old")
            temporary.replace(target)
            shutil.rmtree(retired, ignore_errors=True)
        else:
            temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _hidden(path: Path) -> str:
    """How the name of a temporary neighbour begins: short enough wherever the name itself was."""
    return f".{path.name[:50]}."


def fingerprint(*parts: Any) -> str:
    """A content hash (32 hex digits) of bytes and, as canonical JSON, any other values; the same on every machine."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True, default=str).encode()
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


def folder_name(*verticals: str, among: Iterable[str] = ()) -> str:
    """The names of some verticals as the name of one folder, whatever their order: never a path, at most 140 bytes.

    Args:
        verticals: one keeps its name where it is an ordinary one.
        among: all verticals with folders in the same place. Where another of them differs in nothing but capitals, the
            name ends in a hash: some file systems take the two for one.

    Example:
        >>> folder_name("shoes"), folder_name("shoes", "hats/caps"), folder_name("Shoes", among=["Shoes", "shoes"])
        ('shoes', 'hats%2Fcaps+shoes', 'Shoes~3935ba23')
    """
    names = sorted(verticals)
    quoted = "+".join(quote(name, safe=" ") for name in names)
    quoted = quoted.replace(".", "%2E") if quoted.startswith(".") else quoted
    known = list(among)
    alike = any(other != name and other.lower() == name.lower() for name in names for other in known)
    if len(quoted) <= _LONGEST_NAME and not alike:
        return quoted
    return f"{quoted[:_LONGEST_NAME]}~{fingerprint(names)[:8]}"
