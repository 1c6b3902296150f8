"""Uploaded photos: looked at before they are decoded, decoded to upright RGB, and nothing else of them kept."""

from __future__ import annotations

from typing import Final

from PIL import Image

from univert.core.errors import BadInputError
from univert.data.decode import BoxXyxyPx, ImageProblem, decode_rgb
from univert.serving.headers import (
    JPEG_SIGNATURE,
    PNG_SIGNATURE,
    PhotoHeader,
    is_webp,
    read_jpeg_header,
    read_png_header,
    read_webp_header,
)
from univert.serving.problems import Problem

FORMATS: Final = ("JPEG", "PNG", "WebP")
"""What is taken. GIF is not a format of photos. AVIF and HEIC would put a video decoder in the reach of
strangers; phones and browsers turn them into JPEG on upload (the page does it where they do not)."""
PIXELS_MAX: Final = 50_000_000

_PROBLEM_NAMES: Final = {"too large": "too-large", "unsupported format": "unsupported-type"}


def read_header(content: bytes, pixels_max: int = PIXELS_MAX) -> PhotoHeader:
    """Look at an encoded photo without decoding any of it.

    Args:
        content: the upload; its bytes alone decide what it is, no file name and no declared type.
        pixels_max: width x height at most.

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
        found = read_jpeg_header(content)
    else:
        raise Problem("unsupported-type", f"the content is not one of {', '.join(FORMATS)}; convert it first")
    width, height = found.width_px, found.height_px
    if width < 1 or height < 1:
        raise Problem("bad-photo", "the photo's header is damaged: it has no size")
    if width * height > pixels_max:
        raise Problem(
            "too-large",
            f"{width} x {height} pixels are over the limit of {pixels_max:,} pixels; make the photo smaller",
        )
    return found


def decode_photo(header: PhotoHeader, *, detail_px: int, box_xyxy_px: BoxXyxyPx | None = None) -> Image.Image:
    """Decode a photo, or a part of it, as far as its use needs it.

    Args:
        header: what `read_header` found.
        detail_px: pixels that the shorter side of the result keeps; a large JPEG is decoded smaller than it is.
        box_xyxy_px: the part, within the photo, in pixels of the upright original; None for the whole photo.

    Returns:
        the part, upright, in mode RGB, without any metadata.

    Raises:
        Problem: `bad-photo`, `unsupported-type` or `too-large`.
    """
    try:
        rgb = decode_rgb(
            b"".join(header.parts),
            box_xyxy_px=box_xyxy_px,
            max_pixels=header.width_px * header.height_px,
            # twice the detail for a box: its edges fall between the pixels of a reduced photo
            draft_px=detail_px if box_xyxy_px is None else 2 * detail_px,
        )
    except ImageProblem as error:
        raise Problem(_PROBLEM_NAMES.get(error.kind, "bad-photo"), str(error)) from None
    except BadInputError as error:
        raise Problem("bad-photo", str(error)) from None
    rgb.info.clear()
    return rgb


def clip_box(box_xyxy_px: BoxXyxyPx, header: PhotoHeader) -> BoxXyxyPx:
    """The part of a box that lies within a photo.

    Raises:
        Problem: `bad-box`: less than a pixel of it does.
    """
    x0, y0, x1, y1 = box_xyxy_px
    width, height = header.width_px, header.height_px
    clipped = max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)
    if clipped[2] - clipped[0] < 1 or clipped[3] - clipped[1] < 1:
        raise Problem(
            "bad-box", f"box {x0:g},{y0:g},{x1:g},{y1:g} covers less than a pixel of the {width} x {height} px photo"
        )
    return clipped
