"""Uploaded photos: looked at before they are decoded, decoded to upright RGB, and nothing else of them kept."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from univert.core.errors import BadInputError
from univert.data.decode import BoxXyxyPx, ImageProblem, decode_rgb
from univert.serving.problems import Problem

FORMATS: Final = ("JPEG", "PNG", "WebP")
"""What is taken. GIF is not a format of photos. AVIF and HEIC would put a video decoder in the reach of
strangers; phones and browsers turn them into JPEG on upload (the page does it where they do not)."""

_JPEG: Final = b"\xff\xd8\xff"
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_SWAPS_SIDES: Final = 5
"""From this EXIF orientation on, an upright photo has width and height exchanged."""
_ORIENTATION_TAG: Final = 0x0112
_WEBP_ANIMATED: Final = 0x02
_START_OF_SCAN: Final = b"\xff\xda"
_PNG_HEADER_BYTES: Final = 33


@dataclass(frozen=True, kw_only=True, slots=True)
class PhotoLimits:
    """What a photo may be.

    Attributes:
        pixels_max: width x height at most.
        jpeg_scans_max: scans of a progressive JPEG at most; cameras and editors write about ten.
    """

    pixels_max: int = 50_000_000
    jpeg_scans_max: int = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Photo:
    """A decoded photo, upright, without any metadata.

    Attributes:
        rgb: the pixels; a large JPEG is decoded smaller than it is.
        width_px: width of the original, upright.
        height_px: its height.
    """

    rgb: Image.Image
    width_px: int
    height_px: int

    def crop(self, box_xyxy_px: BoxXyxyPx) -> Image.Image:
        """A part of the photo, the box given in pixels of the original."""
        across, down = self.rgb.width / self.width_px, self.rgb.height / self.height_px
        x0, y0, x1, y1 = box_xyxy_px
        left, top = math.floor(x0 * across), math.floor(y0 * down)
        right, bottom = math.ceil(x1 * across), math.ceil(y1 * down)
        return self.rgb.crop((left, top, min(right, self.rgb.width), min(bottom, self.rgb.height)))


def upright_size(content: bytes, limits: PhotoLimits) -> tuple[int, int]:
    """Width and height of an encoded photo from its header alone, nothing decoded.

    A JPEG is turned upright; the few PNG and WebP files with an orientation keep their sides as stored.

    Args:
        content: the upload; its bytes alone decide what it is, no file name and no declared type.
        limits: what it may be.

    Raises:
        Problem: `bad-photo`, `unsupported-type` or `too-large`.
    """
    if not content:
        raise Problem("bad-photo", "the photo is empty: zero bytes arrived")
    if content.startswith(_PNG):
        size, turned = _png_size(content), 1
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        size, turned = _webp_size(content), 1
    elif content.startswith(_JPEG):
        if content.count(_START_OF_SCAN) > limits.jpeg_scans_max:
            raise Problem("bad-photo", f"the JPEG has more than {limits.jpeg_scans_max} scans; save it again")
        size, turned = _jpeg_size(content)
    else:
        raise Problem("unsupported-type", f"the content is not one of {', '.join(FORMATS)}; convert it first")
    width, height = size
    if width < 1 or height < 1:
        raise Problem("bad-photo", "the photo's header is damaged: it has no size")
    if width * height > limits.pixels_max:
        raise Problem(
            "too-large",
            f"{width} x {height} pixels are over the limit of {limits.pixels_max:,} pixels; make the photo smaller",
        )
    return (height, width) if turned >= _SWAPS_SIDES else (width, height)


def read_photo(
    content: bytes, limits: PhotoLimits, *, detail_px: int, box_xyxy_px: BoxXyxyPx | None = None
) -> Photo:
    """Decode a photo, as far as its use needs it.

    Args:
        content: the upload.
        limits: what it may be.
        detail_px: pixels that the shorter side of what is looked at should keep.
        box_xyxy_px: what will be looked at; null for the whole photo.

    Raises:
        Problem: `bad-photo`, `unsupported-type` or `too-large`.
    """
    width, height = upright_size(content, limits)
    shorter = min(width, height)
    wanted = detail_px
    if box_xyxy_px is not None:
        x0, y0, x1, y1 = box_xyxy_px
        # twice the detail: a box's edges fall between the pixels of a reduced photo
        reduction = max(1, int(min(x1 - x0, y1 - y0)) // (2 * detail_px))
        wanted = max(detail_px, shorter // reduction)
    try:
        rgb = decode_rgb(content, max_pixels=limits.pixels_max, draft_px=wanted)
    except ImageProblem as error:
        name = {"too large": "too-large", "unsupported format": "unsupported-type"}.get(
            error.kind, "bad-photo"
        )
        raise Problem(name, str(error)) from None
    except BadInputError as error:
        raise Problem("bad-photo", str(error)) from None
    rgb.info.clear()
    if not content.startswith(_JPEG):  # decoded at full size, and turned upright by EXIF if it has any
        width, height = rgb.size
    return Photo(rgb=rgb, width_px=width, height_px=height)


def _jpeg_size(content: bytes) -> tuple[tuple[int, int], int]:
    """Size as stored, and the EXIF orientation."""
    try:
        image = JpegImageFile(io.BytesIO(content))
    except Exception as error:
        # The parser raises whatever damaged bytes lead it to: to the client it is one thing.
        raise Problem("bad-photo", f"the JPEG's header is damaged ({error})") from None
    try:
        turned = int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # a damaged EXIF block says nothing about the pixels
        turned = 1
    return image.size, turned if 1 <= turned <= 8 else 1


def _png_size(content: bytes) -> tuple[int, int]:
    if len(content) < _PNG_HEADER_BYTES or content[12:16] != b"IHDR":
        raise Problem("bad-photo", "the PNG's header is damaged")
    for kind in _png_chunks(content):
        if kind == b"acTL":
            raise _moves("PNG")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def _png_chunks(content: bytes) -> Iterator[bytes]:
    """The kinds of the chunks before the pixels."""
    position = len(_PNG)
    while position + 8 <= len(content):
        kind = content[position + 4 : position + 8]
        if kind == b"IDAT":
            return
        yield kind
        position += 12 + int.from_bytes(content[position : position + 4], "big")


def _webp_size(content: bytes) -> tuple[int, int]:
    """Size out of a WebP header; (0, 0) where it is damaged."""
    chunk, body = content[12:16], content[20:30]
    if len(body) < 10:
        return 0, 0
    if chunk == b"VP8X":
        if body[0] & _WEBP_ANIMATED:
            raise _moves("WebP")
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        return (
            int.from_bytes(body[6:8], "little") & 0x3FFF,
            int.from_bytes(body[8:10], "little") & 0x3FFF,
        )
    return 0, 0


def _moves(kind: str) -> Problem:
    return Problem("bad-photo", f"the {kind} is animated; send one still picture")
