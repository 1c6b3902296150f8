"""Arrays with a row for every image and augmented view, computed once and kept on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int64

from univert.core.terminal import progress_bar
from univert.data.samplers import Positions

__all__ = ["Compute", "Positions", "Rows", "ViewArrays", "by_parts"]

Rows = Float[np.ndarray, "B W"]
Compute = Callable[[Positions, Positions], Iterator[Rows]]
"""From positions and view numbers (equally many) to their rows, chunk after chunk in the same order."""


def by_parts(rows_of: Callable[[Positions, Positions], Rows], size: int) -> Compute:
    """What computes rows so many at a time, from a function that gives all it is asked for at once."""

    def compute(positions: Positions, views: Positions) -> Iterator[Rows]:
        for start in range(0, len(positions), size):
            part = slice(start, start + size)
            yield rows_of(positions[part], views[part])

    return compute


class ViewArrays:
    """What some function gives for each image as it is (view 0) and for augmented views of the training images.

    One memory-mapped file a view; a file appears when it is whole, and those already there are used again, so an
    interrupted computation goes on with the view it was at. Call `compute_missing` before rows are asked for.

    Args:
        folder: of the files; its name must change with anything that `compute` depends on.
        description: what is computed, for the progress bar.
        count: images in the catalogue.
        augmented: positions of the images that have augmented views.
        views: augmented views each of them has.
        width: columns of a row.
        compute: gives rows; called for missing files alone.
        dtype: of the files and of what `gather` gives: float32 or float16.
    """

    def __init__(
        self,
        folder: Path,
        description: str,
        *,
        count: int,
        augmented: Int64[np.ndarray, "M"],
        views: int,
        width: int,
        compute: Compute,
        dtype: npt.DTypeLike = np.float32,
    ) -> None:
        self.views, self.width, self.dtype = views, width, np.dtype(dtype)
        self._folder, self._description, self._compute = folder, description, compute
        self._count, self._augmented = count, augmented
        self._row = np.full(count, -1, np.int64)
        self._row[augmented] = np.arange(len(augmented))

    def gather(self, positions: Positions, views: Positions) -> Rows:
        """Rows of some images, each in a view.

        Raises:
            IndexError: an augmented view of an image that has none.
        """
        out = np.empty((len(positions), self.width), self.dtype)
        for view in np.unique(views):
            here = views == view
            rows = positions[here] if view == 0 else self._row[positions[here]]
            if len(rows) and rows.min() < 0:
                raise IndexError(f"position {positions[here][rows.argmin()]} has no augmented view {view}")
            out[here] = self._arrays[view][rows]
        return out

    def clean(self, positions: Positions) -> Rows:
        """Rows of images as they are."""
        return self.gather(positions, np.zeros(len(positions), np.int64))

    def compute_missing(self) -> None:
        """Compute what is not on disk yet; of features of many images it takes minutes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        missing = [view for view in range(self.views + 1) if not self._path(view).exists()]
        rows = {view: self._augmented if view else np.arange(self._count) for view in missing}
        if not missing:
            return
        with progress_bar(self._description, sum(map(len, rows.values()))) as advance:
            for view in missing:
                self._write(view, rows[view], advance)

    def _write(self, view: int, positions: Positions, advance: Callable[[int], None]) -> None:
        temporary = self._path(view).with_suffix(".partial")
        shape = (len(positions), self.width)
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=self.dtype, shape=shape)
        _reserve(temporary)
        done = 0
        for chunk in self._compute(positions, np.full(len(positions), view, np.int64)):
            array[done : done + len(chunk)] = chunk
            done += len(chunk)
            advance(len(chunk))
        array.flush()
        temporary.replace(self._path(view))

    def _path(self, view: int) -> Path:
        return self._folder / f"view-{view}.npy"

    @cached_property
    def _arrays(self) -> list[np.ndarray]:
        return [np.load(self._path(view), mmap_mode="r") for view in range(self.views + 1)]


def _reserve(path: Path) -> None:
    """Take the space on disk now: writing to a mapped file on a full disk would kill the process without a word."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
