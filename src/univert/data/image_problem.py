"""Why an encoded image cannot be used: what it is instead, or how much too large it is."""

from __future__ import annotations

from typing import Final

from univert.core.errors import BadInputError

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The image formats that a catalogue takes; of an animation, the first frame."""

MAX_PIXELS: Final = 64_000_000
"""Larger images are refused before they are decoded: 64 million pixels take 192 MB as RGB."""

MAX_SIDE_PX: Final = 20_000
"""A longer side is refused likewise: decoders hold a pointer and more for every row, whatever its length."""

_OTHER_CONTENT: Final[tuple[tuple[int, bytes, str, str], ...]] = (
    (4, b"ftypavi", "AVIF", "convert"),
    (4, b"ftyphe", "HEIC", "convert"),
    (4, b"ftypmif1", "HEIC", "convert"),
    (4, b"ftypmsf1", "HEIC", "convert"),
    (4, b"ftyp", "a video", "remove"),
    (0, b"%pdf", "PDF", "convert"),
    (0, b"\xff\x0a", "JPEG XL", "convert"),
    (4, b"jxl ", "JPEG XL", "convert"),
    (4, b"jp  ", "JPEG 2000", "convert"),
    (0, b"8bps", "a Photoshop file", "convert"),
    (0, b"<!doctype html", "a web page", "download the picture itself"),
    (0, b"<html", "a web page", "download the picture itself"),
    (0, b"version https://git-lfs", "a pointer of Git LFS", "run git lfs pull"),
)
"""Place, content in lower case, what it is, and the remedy."""


class ImageProblem(BadInputError):  # noqa: N818
    """An encoded image that cannot be used.

    Attributes:
        kind: `empty`, `not an image`, `unsupported format`, `too large` or `damaged`.
        fix: what the user can do about it.
    """

    def __init__(self, kind: str, detail: str, fix: str) -> None:
        super().__init__(f"{detail}; {fix}")
        self.kind = kind
        self.detail = detail
        self.fix = fix


def check_size(width_px: int, height_px: int, pixels_max: int) -> None:
    """Refuse an image by the size that its header says, before anything is decoded.

    Raises:
        ImageProblem: it has no pixels, too many, or a side over `MAX_SIDE_PX`.
    """
    if width_px < 1 or height_px < 1:
        raise ImageProblem("damaged", "the header is damaged: it has no size", "copy or export the image again")
    if width_px * height_px <= pixels_max and max(width_px, height_px) <= MAX_SIDE_PX:
        return
    limit = f"{pixels_max:,} pixels" if width_px * height_px > pixels_max else f"{MAX_SIDE_PX:,} pixels a side"
    detail = f"{width_px} x {height_px} pixels are over the limit of {limit}"
    raise ImageProblem("too large", detail, "make the image smaller")


def other_content(content: bytes) -> ImageProblem:
    """What content is that is none of `FORMATS`, and what to do about it."""
    head = content[:512].lstrip().lower()
    formats = ", ".join(FORMATS)
    if head.startswith(b"<") and b"<svg" in head:
        return ImageProblem("unsupported format", "SVG is not supported", f"convert it to one of {formats}")
    for place, magic, name, remedy in _OTHER_CONTENT:
        if head.startswith(magic, place):
            if remedy == "convert":
                return ImageProblem("unsupported format", f"{name} is not supported", f"convert it to one of {formats}")
            fix = f"remove it, or give {formats}" if remedy == "remove" else remedy
            return ImageProblem("not an image", f"the content is {name}, not an image", fix)
    return ImageProblem("not an image", "the content is not an image", f"remove it, or give {formats}")
