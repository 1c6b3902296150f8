"""A folder tree as a source: `vertical/product/image`; images right in `vertical/` are unlabelled."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from univert.core.errors import BadInputError
from univert.data.rows import SourceProblem, SourceRow, SourceRows, is_utf8

_LITTER: Final = frozenset({"Thumbs.db", "desktop.ini", "__MACOSX"})
IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")

_Ancestors = tuple[tuple[int, int], ...]
"""Device and inode of each folder on the way down: meeting one again is a loop."""


def read_folder(source: Path | str) -> SourceRows:
    """Read a tree `vertical/product/image`, in order of names.

    The path below `source` is the image's id. Hidden files and what file managers leave (`Thumbs.db`) are
    skipped, and so are files beside the vertical folders, unless they are images: those are a problem, as are
    folders below a product's, links that lead back up, and names that are not UTF-8.

    Raises:
        BadInputError: there is no such folder.
    """
    source = Path(source)
    if not source.is_dir():
        raise BadInputError(f"{source}: no such folder; give a folder with vertical/product/image")
    status = source.stat()
    return _read(source, source, ((status.st_dev, status.st_ino),))


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name in _LITTER


def _read(root: Path, folder: Path, ancestors: _Ancestors) -> SourceRows:
    levels = folder.relative_to(root).parts  # of the vertical, and the product
    try:
        paths = sorted(path for path in folder.iterdir() if not _is_skipped(path.name))
    except OSError as error:
        yield SourceProblem("unreadable", str(folder), error.strerror or str(error), "check the folder's rights")
        return
    for path in paths:
        what = _look_at(path, ancestors)
        if isinstance(what, SourceProblem):
            yield what
        elif stat.S_ISDIR(what.st_mode):
            if len(levels) < 2:
                yield from _read(root, path, (*ancestors, (what.st_dev, what.st_ino)))
            else:
                fix = "move its images up: the tree is vertical/product/image"
                yield SourceProblem("folder too deep", str(path), "a folder within a product's folder", fix)
        elif levels:
            product = levels[1] if len(levels) == 2 else None
            place = path.relative_to(root).as_posix()
            yield SourceRow(origin=str(path), id=place, path=path, vertical=levels[0], product=product)
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            fix = "move it into a vertical's folder: vertical/image, or vertical/product/image"
            yield SourceProblem("outside a vertical", str(path), "an image beside the verticals", fix)


def _look_at(path: Path, ancestors: _Ancestors) -> os.stat_result | SourceProblem:
    if not is_utf8(path.name):
        return SourceProblem("name not UTF-8", str(path), f"the name is {os.fsencode(path.name)!r}", "rename it")
    try:
        status = path.stat()
    except FileNotFoundError:
        return SourceProblem("broken link", str(path), "it leads to nothing", "remove it, or put its target back")
    except OSError as error:
        if error.errno == errno.ELOOP:
            return SourceProblem("symlink loop", str(path), "the link leads to itself", "remove the link")
        return SourceProblem("unreadable", str(path), error.strerror or str(error), "check its rights")
    if stat.S_ISDIR(status.st_mode):
        if (status.st_dev, status.st_ino) in ancestors:
            return SourceProblem(
                "symlink loop", str(path), f"the link leads back up to {path.resolve()}", "remove the link"
            )
    elif not stat.S_ISREG(status.st_mode):
        return SourceProblem("unreadable", str(path), "it is neither a file nor a folder", "remove it")
    return status
