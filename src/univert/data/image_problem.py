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

_OTHER_FORMATS: Final = (
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphe", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypmsf1", "HEIC"),
    (4, b"ftyp", "video"),
    (0, b"%pdf", "PDF"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"jxl ", "JPEG XL"),
    (4, b"jp  ", "JPEG 2000"),
    (0, b"8bps", "Photoshop's format"),
)
"""Place, content in lower case, and what it is."""

_NO_IMAGES: Final = {
    b"<!doctype html": ("a web page, not an image", "download the picture itself"),
    b"<html": ("a web page, not an image", "download the picture itself"),
    b"version https://git-lfs": ("a pointer of Git LFS, not an image", "run git lfs pull"),
    b"": ("not an image", f"remove it, or give {', '.join(FORMATS)}"),
}
"""How content starts that downloads leave in an image's place; what it is, and the remedy."""


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
    """Refuse an image without pixels, with too many, or with a side over `MAX_SIDE_PX`, by what its header says."""
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
    name = next((name for place, magic, name in _OTHER_FORMATS if head.startswith(magic, place)), None)
    if name or (head.startswith(b"<") and b"<svg" in head):
        fix = f"convert it to one of {', '.join(FORMATS)}"
        return ImageProblem("unsupported format", f"{name or 'SVG'} is not supported", fix)
    what, fix = next(found for start, found in _NO_IMAGES.items() if head.startswith(start))
    return ImageProblem("not an image", f"the content is {what}", fix)
