"""From a photo to the parts of it that are searched with: where a detector will take its place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from univert.data.decode import BoxXyxyPx
from univert.serving.photos import Photo
from univert.serving.problems import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A part of a photo that shows one item.

    Attributes:
        box_xyxy_px: where, in pixels of the upright photo; None for the whole of it.
        label: what a detector takes it for; None where none looked.
        score: how sure it is, 0 to 1.
    """

    box_xyxy_px: BoxXyxyPx | None
    label: str | None = None
    score: float = 1.0


class Regions(Protocol):
    """Finds the items of a photo. A detector is one; so are the whole photo and a box drawn by hand."""

    def __call__(self, photo: Photo) -> Sequence[Region]:
        """The regions, the most prominent first; at least one."""
        ...


@dataclass(frozen=True, slots=True)
class WholePhoto:
    """The whole photo is the item."""

    def __call__(self, photo: Photo) -> Sequence[Region]:
        """One region that is all of it."""
        return [Region(box_xyxy_px=None)]


@dataclass(frozen=True, slots=True)
class GivenBox:
    """The item is in a box that the user drew.

    Attributes:
        box_xyxy_px: x0, y0, x1, y1 in pixels of the upright photo; what reaches outside is cut off.
    """

    box_xyxy_px: BoxXyxyPx

    def __call__(self, photo: Photo) -> Sequence[Region]:
        """One region, the box within the photo.

        Raises:
            Problem: `bad-box`: nothing of the box lies within the photo.
        """
        return [Region(box_xyxy_px=clip_box(self.box_xyxy_px, (photo.width_px, photo.height_px)))]


def parse_box(text: str) -> BoxXyxyPx:
    """A box from its text, `x0,y0,x1,y1`.

    Raises:
        Problem: `bad-box`: not four finite numbers, or no area.
    """
    try:
        numbers = [float(part) for part in text.split(",")] if len(text) <= 200 else []
    except ValueError:
        numbers = []
    if len(numbers) != 4 or not all(math.isfinite(number) for number in numbers):
        raise Problem("bad-box", f"box must be four numbers x0,y0,x1,y1, got {text[:60]!r}")
    x0, y0, x1, y1 = numbers
    if not (x0 < x1 and y0 < y1):
        raise Problem("bad-box", f"box must have x0 < x1 and y0 < y1, got {text[:60]!r}")
    return x0, y0, x1, y1


def clip_box(box_xyxy_px: BoxXyxyPx, size_px: tuple[int, int]) -> BoxXyxyPx:
    """The part of a box that lies within a photo of (width, height).

    Raises:
        Problem: `bad-box`: none of it does.
    """
    x0, y0, x1, y1 = box_xyxy_px
    width, height = size_px
    clipped = max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)
    if clipped[2] - clipped[0] < 1 or clipped[3] - clipped[1] < 1:
        raise Problem(
            "bad-box", f"box {x0:g},{y0:g},{x1:g},{y1:g} covers less than a pixel of the {width} x {height} px photo"
        )
    return clipped
