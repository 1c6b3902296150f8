"""Encoded images to upright RGB: every format, orientation, depth and transparency, one way everywhere."""

from __future__ import annotations

import contextlib
import io
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ExifTags import Base as Tag
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from univert.core.errors import BadInputError
from univert.data.headers import JPEG_END, JPEG_FRAMES, JPEG_SEQUENTIAL, check_size, read_header
from univert.data.image_problem import MAX_PIXELS, ImageProblem, other_content

WHITE = (255, 255, 255)

Rgb = tuple[int, int, int]
BoxXyxyPx = tuple[float, float, float, float]

_WITHOUT_METADATA: Final = (JpegImageFile, PngImageFile, WebPImageFile)
"""Decoded from their pixels alone, since Pillow refuses some for what is written beside them."""

# Pillow's own `Image.open` warns about large images through a process-wide setting; going to the format's
# class keeps the limit ours, and no format is tried that a catalogue does not take.
_OPENERS: Final[tuple[tuple[int, bytes, type[ImageFile]], ...]] = (
    (0, b"\xff\xd8\xff", JpegImageFile),
    (0, b"\x89PNG\r\n\x1a\n", PngImageFile),
    (8, b"WEBPVP8", WebPImageFile),
    (0, b"GIF87a", GifImageFile),
    (0, b"GIF89a", GifImageFile),
    (0, b"BM", BmpImageFile),
    (0, b"II*\x00", TiffImageFile),
    (0, b"MM\x00*", TiffImageFile),
    (0, b"II+\x00", TiffImageFile),
    (0, b"MM\x00+", TiffImageFile),
)

_WHITE_IS_ZERO: Final = 0
_REDUCED: Final = 1
"""The first picture of a TIFF is a small preview, as in what cameras write."""
_STRIP_ROWS: Final = 256
_WEBP_BYTES_PER_PIXEL: Final = 17
_PNG_BYTES_PER_PIXEL: Final = 9
_JPEG_BYTES_PER_PIXEL: Final = 8.5
_JPEG_FILLING: Final = b"\xaa" * 64
"""Decodes to pixels that are not those of missing data."""


def decode_rgb(
    content: bytes,
    *,
    box_xyxy_px: BoxXyxyPx | None = None,
    background_rgb: Rgb = WHITE,
    max_pixels: int = MAX_PIXELS,
    draft_px: int | None = None,
) -> Image.Image:
    """Decode an image to upright RGB.

    EXIF orientation is applied; transparency is composited on a background; CMYK, palette and greyscale
    become RGB; 16 bits a channel are scaled to 8. Colour profiles are not applied.

    Args:
        content: the encoded image, in one of `FORMATS`.
        box_xyxy_px: crop to this box (x0, y0, x1, y1), in pixels of the upright image, widened to whole
            pixels and limited to the image.
        background_rgb: the colour behind transparent pixels, 0 to 255.
        max_pixels: refuse images with more pixels than this.
        draft_px: the result may be smaller than the original, as long as no side falls below this many
            pixels; lets a large JPEG decode several times faster.

    Returns:
        the image, in mode RGB.

    Raises:
        ImageProblem: the content is not a usable image.
        BadInputError: the box is empty or lies outside the image.
    """
    with _explaining():
        image, upright_size = _open(content, max_pixels)
        if draft_px is not None:
            _allow_draft(image, box_xyxy_px, draft_px)
        _load_upright(image)
        part = image if box_xyxy_px is None else _crop(image, box_xyxy_px, upright_size or image.size)
        return _pixels_to_rgb(part, background_rgb, image if isinstance(image, TiffImageFile) else None)


class ImageParts:
    """One encoded image of which several parts are wanted, each with the same pixels as `decode_rgb` gives.

    What was decoded last is kept, and serves the next part that allows the same draft: ask for parts in the order of
    their size.

    Args:
        content: as for `decode_rgb`.
        max_pixels: as for `decode_rgb`.

    Raises:
        ImageProblem: the content is not a usable image.
    """

    def __init__(self, content: bytes, *, max_pixels: int = MAX_PIXELS) -> None:
        self._max_pixels = max_pixels
        with _explaining():
            self._opener, self._content, self._upright_size = _picture(content, max_pixels)
        self._decoded: tuple[tuple[int, int], Image.Image] | None = None  # the file's size as drafted, and all of it

    def part(self, box_xyxy_px: BoxXyxyPx | None = None, *, draft_px: int | None = None) -> Image.Image:
        """The image, or a box in it, as `decode_rgb` gives it; only to be read.

        Raises:
            ImageProblem: the image is damaged.
            BadInputError: the box is empty or lies outside the image.
        """
        with _explaining():
            image = _opened(self._opener, self._content, self._max_pixels)
            if draft_px is not None:
                _allow_draft(image, box_xyxy_px, draft_px)
            if self._decoded is None or self._decoded[0] != image.size:
                self._decoded, drafted = None, image.size
                _load_upright(image)
                upright = image.size
                rgb = _pixels_to_rgb(image, WHITE, image if isinstance(image, TiffImageFile) else None)
                self._upright_size = self._upright_size or upright
                self._decoded = drafted, rgb
            rgb = self._decoded[1]
            return rgb if box_xyxy_px is None else _crop(rgb, box_xyxy_px, self._upright_size or rgb.size)


def to_rgb(image: Image.Image, *, background_rgb: Rgb = WHITE) -> Image.Image:
    """A PIL image of any mode as upright RGB, by the rules of `decode_rgb`.

    Raises:
        ImageProblem: it has no pixels, cannot be decoded, or is of a mode that has no fixed range.
    """
    if not image.width or not image.height:
        raise ImageProblem("empty", f"the image has no pixels: {image.width} x {image.height}", "give another one")
    try:
        upright = ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageProblem("damaged", f"the image is damaged ({error})", "copy or export it again") from error
    return _pixels_to_rgb(upright, background_rgb, None)


def check_image(content: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Make sure that an image decodes from its first byte to its last; width and height of the upright image.

    Raises:
        ImageProblem: the content is not a usable image.
    """
    with _explaining():
        image, upright_size = _open(content, max_pixels)
        # A JPEG at an eighth of its size still reads its whole stream, several times faster.
        _allow_draft(image, None, 1)
        _load_upright(image)
        if image.mode not in ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK"):
            _pixels_to_rgb(image, WHITE, image if isinstance(image, TiffImageFile) else None)
        return upright_size or image.size


def quantisation_tables(content: bytes, *, max_pixels: int = MAX_PIXELS) -> list[list[int]]:
    """The 64 steps of each quantisation table of a JPEG, brightness first; none for other formats.

    Raises:
        ImageProblem: the content is not a usable image.
    """
    with _explaining():
        image, _ = _open(content, max_pixels)
        tables = image.quantization if isinstance(image, JpegImageFile) else {}
        return [list(tables[key]) for key in sorted(tables)]


def _open(content: bytes, max_pixels: int) -> tuple[ImageFile, tuple[int, int] | None]:
    """The image, not yet decoded, and the size it has upright where only its header can tell."""
    opener, content, size = _picture(content, max_pixels)
    return _opened(opener, content, max_pixels), size


def _picture(content: bytes, max_pixels: int) -> tuple[type[ImageFile], bytes, tuple[int, int] | None]:
    """What opens an image, the bytes to decode, and the size it has upright where only its header can tell."""
    if not content:
        raise ImageProblem("empty", "the file is empty", "replace or remove it")
    opener = next((opener for place, magic, opener in _OPENERS if content.startswith(magic, place)), None)
    if opener is None:
        raise other_content(content)
    size = None
    if opener in _WITHOUT_METADATA:
        header = read_header(content, max_pixels)
        size = (header.width_px, header.height_px)
        content = b"".join(header.parts)
        if header.lacks_end:
            content = _with_end(content)
    return opener, content, size


def _opened(opener: type[ImageFile], content: bytes, max_pixels: int) -> ImageFile:
    image = opener(io.BytesIO(content))
    check_size(image.width, image.height, max_pixels)
    if isinstance(image, TiffImageFile) and image.tag_v2.get(Tag.NewSubfileType, 0) & _REDUCED:
        raise ImageProblem("unsupported format", "a camera's raw file is not supported", "export it as JPEG")
    return image


def _with_end(jpeg: bytes) -> bytes:
    """A JPEG that lacks the marker of its end with one, where all of its picture is there.

    Decoders fill up what is missing. So it is all there if the picture is the same, whatever follows the data.

    Raises:
        ImageProblem: it breaks off before its last row.
    """
    data = jpeg.rstrip(b"\0")  # what a download that broke off leaves behind
    if data.endswith(b"\xff"):  # half of a marker, or of a byte FF in the data, which is written FF 00
        data = data + b"\0" if len(data) < len(jpeg) else data[:-1]
    bare, filled = (JpegImageFile(io.BytesIO(data + more + JPEG_END)).histogram() for more in (b"", _JPEG_FILLING))
    if bare != filled:
        raise ImageProblem(
            "damaged", "the image is damaged (it breaks off before its last row)", "copy or export it again"
        )
    return data + JPEG_END


def _allow_draft(image: ImageFile, box_xyxy_px: BoxXyxyPx | None, draft_px: int) -> None:
    if not isinstance(image, JpegImageFile):
        return
    width, height = image.size
    side = min(width, height)
    if box_xyxy_px is not None:
        x0, y0, x1, y1 = box_xyxy_px
        side = int(min(side, x1 - x0, y1 - y0))
    if side > draft_px >= 1:
        reduction = side // draft_px
        image.draft("RGB", (math.ceil(width / reduction), math.ceil(height / reduction)))


def _load_upright(image: ImageFile) -> None:
    image.load()
    if not isinstance(image, TiffImageFile):  # Pillow turns these upright by itself
        ImageOps.exif_transpose(image, in_place=True)


def _crop(image: Image.Image, box_xyxy_px: BoxXyxyPx, upright_size: tuple[int, int]) -> Image.Image:
    x0, y0, x1, y1 = box_xyxy_px
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, upright_size[0]), min(y1, upright_size[1])
    if not (left < right and top < bottom):
        raise BadInputError(
            f"box {box_xyxy_px} has no area within the {upright_size[0]} x {upright_size[1]} px image; "
            "give x0 < x1 and y0 < y1 in pixels of the upright image"
        )
    across, down = image.width / upright_size[0], image.height / upright_size[1]
    corner = min(image.width, math.ceil(right * across)), min(image.height, math.ceil(bottom * down))
    return image.crop((math.floor(left * across), math.floor(top * down), *corner))


def _pixels_to_rgb(image: Image.Image, background_rgb: Rgb, file: TiffImageFile | None) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _sixteen_bits_to_rgb(image, background_rgb, file)
    if image.mode in ("I", "F", "LAB", "HSV"):
        raise ImageProblem(
            "unsupported format",
            f"pixels of kind {image.mode} (32 bits or not a display colour) are not supported",
            "save it with 8 or 16 bits a channel",
        )
    if not image.has_transparency_data:
        return image if type(image) is Image.Image and image.mode == "RGB" else image.convert("RGB")
    return _composite(image, background_rgb)


def _sixteen_bits_to_rgb(image: Image.Image, background_rgb: Rgb, file: TiffImageFile | None) -> Image.Image:
    peak, white_is_zero = 65535, False
    transparent = image.info.get("transparency")
    if file is not None:
        peak = 2 ** int(file.tag_v2.get(Tag.BitsPerSample, (16,))[0]) - 1
        white_is_zero = file.tag_v2.get(Tag.PhotometricInterpretation) == _WHITE_IS_ZERO
    rgb = Image.new("RGB", image.size, tuple(background_rgb))
    for top, strip in _strips(image):
        values = np.asarray(strip).astype(np.uint32)
        scaled = ((np.minimum(values, peak) * 255 + peak // 2) // peak).astype(np.uint8)
        shown = Image.fromarray(255 - scaled if white_is_zero else scaled)
        mask = Image.fromarray(values != transparent) if isinstance(transparent, int) else None
        rgb.paste(shown.convert("RGB"), (0, top), mask=mask)
    return rgb


def _composite(image: Image.Image, background_rgb: Rgb) -> Image.Image:
    below = Image.new("RGB", image.size, tuple(background_rgb))
    for top, strip in _strips(image):
        rgba = strip.convert("RGBA")
        below.paste(rgba.convert("RGB"), (0, top), mask=rgba.getchannel("A"))
    return below


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """An image in strips, each with its top row: a large photo takes hundreds of megabytes as it is."""
    for top in range(0, image.height, _STRIP_ROWS):
        yield top, image.crop((0, top, image.width, min(top + _STRIP_ROWS, image.height)))


def decode_bytes(parts: Sequence[bytes | memoryview], pixels: int, *, reduced: bool) -> int:
    """How much memory `decode_rgb` takes for a JPEG, PNG or WebP of so many pixels, at most.

    The figures are peaks measured with Pillow 12, over the modes and orientations of each format. A WebP is held
    four times; a JPEG in several scans is held as coefficients of 2 bytes, whatever the size it is decoded to (it is
    `reduced` where `draft_px` asks for that). The parts are those of its header; the last holds all scans.
    """
    if parts[0][:4] == b"RIFF":
        return _WEBP_BYTES_PER_PIXEL * pixels
    if parts[0][:2] != b"\xff\xd8":
        return _PNG_BYTES_PER_PIXEL * pixels
    coefficients = 0.0
    for part in parts:
        if part[:1] == b"\xff" and part[1] in JPEG_FRAMES:
            across, down = [value >> 4 for value in part[11::3]], [value & 15 for value in part[11::3]]
            in_one_scan = part[1] in JPEG_SEQUENTIAL and part[9] == parts[-1][4]
            samples = sum(map(operator.mul, across, down)) / max(1, max(across, default=1) * max(down, default=1))
            coefficients = 0.0 if in_one_scan else 2 * samples
    return round((coefficients + 0.5 if reduced else max(coefficients + 4.5, _JPEG_BYTES_PER_PIXEL)) * pixels)


@contextlib.contextmanager
def _explaining() -> Iterator[None]:
    """Turn whatever a decoder raises on damaged bytes into an `ImageProblem`."""
    try:
        yield
    except BadInputError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageProblem("too large", str(error), "make it smaller or remove it") from None
    except Exception as error:
        raise ImageProblem("damaged", f"the image is damaged ({error})", "copy or export it again") from None
