"""From an uploaded photo to what the networks see: decoded within limits, its items found and cut out."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import UInt8

from univert.data.decode import BoxXyxyPx, ImageParts, decode_bytes
from univert.data.headers import PhotoHeader, read_header
from univert.detection.engine import Detector, FoundItem
from univert.models.runtime.engine import Engine
from univert.serving.problems import Problem

_BYTES_PER_PIXEL_MAX: Final = 9
"""What decoding may take for each pixel of `photo_pixels_max`: a PNG or a plain JPEG of that size."""
_BOX_DETAIL: Final = 2
"""A box is decoded with so many times the detail: its edges fall between the pixels of a reduced photo."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenPhoto:
    """What the networks see of a photo.

    Attributes:
        header: what is known of it.
        box_xyxy_px: the part that was asked about, cut to the photo; None for all of it.
        pixels: of that part first, then of each item.
        items: what was found, the surest first, boxes in whole pixels of the upright photo.
        detect_s: seconds that finding it took.
    """

    header: PhotoHeader
    box_xyxy_px: BoxXyxyPx | None
    pixels: UInt8[np.ndarray, "B 3 S S"]
    items: list[FoundItem]
    detect_s: float = 0.0


def see_photo(
    content: bytes,
    bytes_max: float,
    *,
    engine: Engine,
    pixels_max: int,
    box_xyxy_px: BoxXyxyPx | None = None,
    detector: Detector | None = None,
    items_max: int = 0,
) -> SeenPhoto | None:
    """Decode a photo, or a box in it, and find and cut out its items; None where it takes over `bytes_max`.

    An item is cut out as a search with its box would do it.

    Raises:
        BadInputError: it cannot be decoded, or a limit forbids it.
        Problem: the box lies outside of it, or decoding it takes too much memory.
    """
    header = read_header(content, pixels_max)
    finder = detector if box_xyxy_px is None and items_max > 0 else None
    reduced = box_xyxy_px is None and not header.lacks_end and finder is None
    if memory_bytes(header, pixels_max, reduced=reduced) > bytes_max:
        return None
    parts, side = _parts_of(header), engine.image_size_px
    if box_xyxy_px is not None:
        box_xyxy_px = clip_box(box_xyxy_px, header)
        detail = parts.part(box_xyxy_px, draft_px=_BOX_DETAIL * side)
        return SeenPhoto(header=header, box_xyxy_px=box_xyxy_px, pixels=engine.prepare(detail)[None], items=[])
    whole = engine.prepare(parts.part(draft_px=side))
    started = time.perf_counter()
    items = find_items(parts, header, finder)[:items_max] if finder else []
    detect_s = time.perf_counter() - started if finder else 0.0
    crops = [whole] * (1 + len(items))
    for place in sorted(range(len(items)), key=lambda place: -_shorter_side(items[place])):
        crops[1 + place] = engine.prepare(parts.part(items[place].box_xyxy_px, draft_px=_BOX_DETAIL * side))
    return SeenPhoto(header=header, box_xyxy_px=None, pixels=np.stack(crops), items=items, detect_s=detect_s)


def find_items(parts: ImageParts, header: PhotoHeader, detector: Detector) -> list[FoundItem]:
    """What a detector finds in a photo, the surest first, each box widened to whole pixels of the upright photo."""
    image = parts.part(draft_px=detector.preprocessing.image_size_px)
    across, down = header.width_px / image.width, header.height_px / image.height
    found = []
    for item in detector.detect([image])[0]:
        x0, y0, x1, y1 = item.box_xyxy_px
        corner = min(header.width_px, math.ceil(x1 * across)), min(header.height_px, math.ceil(y1 * down))
        box = (float(int(x0 * across)), float(int(y0 * down)), float(corner[0]), float(corner[1]))
        found.append(dataclasses.replace(item, box_xyxy_px=box))
    return found


def look_for_items(
    content: bytes, bytes_max: float, *, detector: Detector, pixels_max: int
) -> tuple[PhotoHeader, list[FoundItem]] | None:
    """What a detector finds in a photo, and what is known of it; None where decoding takes over `bytes_max`.

    Raises:
        BadInputError: it cannot be decoded, or a limit forbids it.
        Problem: decoding it takes too much memory.
    """
    header = read_header(content, pixels_max)
    if memory_bytes(header, pixels_max, reduced=not header.lacks_end) > bytes_max:
        return None
    return header, find_items(_parts_of(header), header, detector)


def memory_bytes(header: PhotoHeader, pixels_max: int, *, reduced: bool) -> int:
    """What decoding a photo takes at most; `reduced`: no box in it is asked for, so that a JPEG is decoded smaller.

    What could take more than the largest plain JPEG does is `too-large`: a large WebP, above all.
    """
    pixels, limit = header.width_px * header.height_px, _BYTES_PER_PIXEL_MAX * pixels_max
    needed = decode_bytes(header.parts, pixels, reduced=False)
    if needed > limit:
        size, over = f"{header.width_px} x {header.height_px}", f"{needed / 1e6:,.0f} MB of {limit / 1e6:,.0f}"
        said = f"{size} pixels of this kind take {over} to decode; make the photo smaller, or send a plain JPEG"
        raise Problem("too-large", said)
    return decode_bytes(header.parts, pixels, reduced=reduced)


def clip_box(box_xyxy_px: BoxXyxyPx, header: PhotoHeader) -> BoxXyxyPx:
    """The part of a box that lies within a photo; `bad-box` where less than a pixel of it does."""
    x0, y0, x1, y1 = box_xyxy_px
    width, height = header.width_px, header.height_px
    clipped = max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)
    if clipped[2] - clipped[0] < 1 or clipped[3] - clipped[1] < 1:
        raise Problem(
            "bad-box", f"box {x0:g},{y0:g},{x1:g},{y1:g} covers less than a pixel of the {width} x {height} px photo"
        )
    return clipped


def _parts_of(header: PhotoHeader) -> ImageParts:
    return ImageParts(b"".join(header.parts), max_pixels=header.width_px * header.height_px)


def _shorter_side(item: FoundItem) -> float:
    x0, y0, x1, y1 = item.box_xyxy_px
    return min(x1 - x0, y1 - y0)
