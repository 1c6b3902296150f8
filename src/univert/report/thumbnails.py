"""Small pictures for the report: square WebP thumbnails as data URIs, and many of them in one atlas."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from univert.core.errors import BadInputError
from univert.data.decode import decode_rgb

if TYPE_CHECKING:
    from univert.data.catalogue import Catalogue

_READ_AT_ONCE = 16
"""Images held in memory together; the rest of the catalogue stays on disk."""

_NO_PICTURE_RGB = (222, 222, 220)


def thumbnails(catalogue: Catalogue, positions: Sequence[int], *, size_px: int) -> Iterator[Image.Image]:
    """Square thumbnails of a catalogue's images: the item's box, fitted and padded with the background.

    Images are read and decoded a few at a time. An image that is gone or unreadable (a linked file may have
    moved since the catalogue was built) gives a grey placeholder: a report should not fail for a picture.

    Yields:
        one RGB image of `size_px` x `size_px` for each position (in any order, repeats allowed).
    """
    for start in range(0, len(positions), _READ_AT_ONCE):
        some = [int(position) for position in positions[start : start + _READ_AT_ONCE]]
        boxes = catalogue.boxes(some)
        for content, box in zip(_contents(catalogue, some), boxes, strict=True):
            yield _thumbnail(content, box, catalogue.background_rgb, size_px)


def data_uri(image: Image.Image, *, quality: int = 72) -> str:
    """A picture as a `data:image/webp;base64,...` URI, of a quality from 0 (smallest) to 100."""
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def atlas(images: Iterator[Image.Image], count: int, *, cell_px: int) -> tuple[str, int]:
    """Lay `count` thumbnails of `cell_px` x `cell_px` out in one nearly square picture: lighter than as many pictures.

    Returns:
        the picture as a `data:image/webp` URI, and how many thumbnails it has in a row.
    """
    columns = max(1, math.ceil(math.sqrt(count)))
    rows = max(1, math.ceil(count / columns))
    sheet = Image.new("RGB", (columns * cell_px, rows * cell_px), (255, 255, 255))
    for index, image in enumerate(images):
        sheet.paste(image, (cell_px * (index % columns), cell_px * (index // columns)))
    return data_uri(sheet, quality=60), columns


def _contents(catalogue: Catalogue, positions: list[int]) -> list[bytes]:
    try:
        return catalogue.image_bytes(positions)
    except (OSError, BadInputError):
        if len(positions) == 1:
            return [b""]
        return [content for position in positions for content in _contents(catalogue, [position])]


def _thumbnail(
    content: bytes,
    box_xyxy_px: tuple[float, float, float, float] | None,
    background_rgb: tuple[int, int, int],
    size_px: int,
) -> Image.Image:
    try:
        image = decode_rgb(content, box_xyxy_px=box_xyxy_px, background_rgb=background_rgb, draft_px=2 * size_px)
    except (OSError, BadInputError):
        return Image.new("RGB", (size_px, size_px), _NO_PICTURE_RGB)
    return ImageOps.pad(image, (size_px, size_px), Image.Resampling.LANCZOS, color=background_rgb)
