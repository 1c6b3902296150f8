"""Uploaded photos: looked at before they are decoded, decoded to upright RGB, and nothing else of them kept.

The decoder is handed the picture alone. Image libraries read a file's metadata when they open it, and a stranger can
make that cost minutes or gigabytes: thousands of EXIF segments, tags that each claim the whole file, texts that
expand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from PIL import Image

from univert.core.errors import BadInputError
from univert.data.decode import BoxXyxyPx, ImageProblem, decode_rgb
from univert.serving.chunk_headers import PNG_SIGNATURE, is_webp, read_png_header, read_webp_header
from univert.serving.jpeg_headers import SIGNATURE as JPEG_SIGNATURE
from univert.serving.jpeg_headers import read_jpeg_header
from univert.serving.orientation import swaps_sides
from univert.serving.problems import Problem
from univert.serving.stored_photos import Parts

FORMATS: Final = ("JPEG", "PNG", "WebP")
"""What is taken. GIF is not a format of photos. AVIF and HEIC would put a video decoder in the reach of
strangers; phones and browsers turn them into JPEG on upload (the page does it where they do not)."""


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
class PhotoHeader:
    """A photo that has been looked at and may be decoded.

    Attributes:
        width_px: upright.
        height_px: upright.
        parts: of the upload, those that a decoder needs; no metadata but the orientation.
    """

    width_px: int
    height_px: int
    parts: Parts


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


def read_header(content: bytes, limits: PhotoLimits) -> PhotoHeader:
    """Look at an encoded photo without decoding any of it.

    Args:
        content: the upload; its bytes alone decide what it is, no file name and no declared type.
        limits: what it may be.

    Raises:
        Problem: `bad-photo`, `unsupported-type` or `too-large`.
    """
    if not content:
        raise Problem("bad-photo", "the photo is empty: zero bytes arrived")
    if content.startswith(PNG_SIGNATURE):
        found = read_png_header(content)
    elif is_webp(content):
        found = read_webp_header(content)
    elif content.startswith(JPEG_SIGNATURE):
        found = read_jpeg_header(content, limits.jpeg_scans_max)
    else:
        raise Problem("unsupported-type", f"the content is not one of {', '.join(FORMATS)}; convert it first")
    width, height = found.width_px, found.height_px
    if width < 1 or height < 1:
        raise Problem("bad-photo", "the photo's header is damaged: it has no size")
    if width * height > limits.pixels_max:
        raise Problem(
            "too-large",
            f"{width} x {height} pixels are over the limit of {limits.pixels_max:,} pixels; make the photo smaller",
        )
    if swaps_sides(found.orientation):
        width, height = height, width
    return PhotoHeader(width_px=width, height_px=height, parts=found.parts)


def decode_photo(
    header: PhotoHeader, limits: PhotoLimits, *, detail_px: int, box_xyxy_px: BoxXyxyPx | None = None
) -> Photo:
    """Decode a photo, as far as its use needs it.

    Args:
        header: what `read_header` found.
        limits: what it may be.
        detail_px: pixels that the shorter side of what is looked at should keep.
        box_xyxy_px: what will be looked at, within the photo; None for the whole photo.

    Raises:
        Problem: `bad-photo`, `unsupported-type` or `too-large`.
    """
    shorter = min(header.width_px, header.height_px)
    wanted = detail_px
    if box_xyxy_px is not None:
        x0, y0, x1, y1 = box_xyxy_px
        # twice the detail: a box's edges fall between the pixels of a reduced photo
        reduction = max(1, int(min(x1 - x0, y1 - y0)) // (2 * detail_px))
        wanted = max(detail_px, shorter // reduction)
    try:
        rgb = decode_rgb(b"".join(header.parts), max_pixels=limits.pixels_max, draft_px=wanted)
    except ImageProblem as error:
        name = {"too large": "too-large", "unsupported format": "unsupported-type"}.get(error.kind, "bad-photo")
        raise Problem(name, str(error)) from None
    except BadInputError as error:
        raise Problem("bad-photo", str(error)) from None
    rgb.info.clear()
    return Photo(rgb=rgb, width_px=header.width_px, height_px=header.height_px)


def read_photo(content: bytes, limits: PhotoLimits, *, detail_px: int, box_xyxy_px: BoxXyxyPx | None = None) -> Photo:
    """Look at a photo, and decode it: `read_header`, then `decode_photo`.

    Args:
        content: the upload.
        limits: what it may be.
        detail_px: as for `decode_photo`.
        box_xyxy_px: as for `decode_photo`.

    Raises:
        Problem: `bad-photo`, `unsupported-type` or `too-large`.
    """
    return decode_photo(read_header(content, limits), limits, detail_px=detail_px, box_xyxy_px=box_xyxy_px)
