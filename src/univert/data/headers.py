"""The headers of JPEG, PNG and WebP files, walked once: how large the picture is, which way up, where it ends.

The decoder is then handed the picture alone. Image libraries read a file's metadata when they open it: they refuse a
picture for its long texts, and a stranger can make that cost minutes or gigabytes with thousands of EXIF segments, tags
that each claim the whole file, texts that expand.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from univert.data.image_problem import MAX_PIXELS, ImageProblem

MAX_SIDE_PX: Final = 20_000
"""A longer side is refused likewise: decoders hold a pointer and more for every row, whatever its length."""
JPEG_SIGNATURE: Final = b"\xff\xd8\xff"
JPEG_END: Final = b"\xff\xd9"
PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
SCANS_MAX: Final = 64
"""Scans of a progressive JPEG, each of which costs a pass over the whole photo; cameras and editors write about ten."""
SEGMENTS_MAX: Final = 1_000
"""A photo has about ten; a colour profile or a depth map in pieces of 64 kB makes them a few hundred."""
TABLES_BYTES_MAX: Final = 262_144
"""Tables before the pixels, which the decoder reads at its leisure; a photo's take 3 kB, its JFIF thumbnail 60."""

_FILL_BYTES_MAX: Final = 65_536
"""Between two segments before the pixels; usual are none."""

_JPEG_MARKER: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Not 00, which says that the FF is a pixel's; not FF, which fills; not a restart, which stands in the pixels."""

_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_APP1, _FIRST_WITH_LENGTH = 0xE1, 0xC0
JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_SEQUENTIAL: Final = (0xC0, 0xC1)
_JPEG_TABLES: Final = frozenset({0xC4, 0xCC, 0xDB, 0xDD, 0xE0, 0xEE})
"""Huffman, arithmetic and quantisation tables, restart interval; JFIF and Adobe, which tell the colours' kind."""

_FRAME_BYTES: Final = 6
_EXIF_ID: Final = b"Exif\0\0"
_XMP_ID: Final = b"http://ns.adobe.com/xap/1.0/\0"
CHUNKS_MAX: Final = 20_000
"""Of a PNG of 15 MB with its pixels in chunks of 1 kB there are 15,000; common are 8 kB and more."""

_PNG_HEADER_BYTES: Final = 33
_PNG_ANCILLARY: Final = 0x20
"""This bit of a chunk's first letter says that the picture can be shown without it."""
_PNG_XMP: Final = b"XML:com.adobe.xmp\0"
_WEBP_ANIMATED: Final = 0x02
_WEBP_ALPHA: Final = 0x10
_WEBP_EXIF: Final = 0x08
_WEBP_FRAME: Final = b"ANMF"
_WEBP_PICTURE: Final = (b"ALPH", b"VP8 ", b"VP8L", b"ANIM", _WEBP_FRAME)
_UPRIGHT: Final = 1
_SWAPS_SIDES: Final = 5
"""From this orientation on, an upright photo has width and height exchanged."""

_ORIENTATION_TAG: Final = 0x0112
_TIFF_INTEGERS: Final = {1: "B", 3: "H", 4: "I"}
"""TIFF's types of whole numbers."""
_TIFF_ENTRY_BYTES: Final = 12
_XMP_ORIENTATION: Final = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')

Parts = list[bytes | memoryview]
"""Pieces of a file, to be joined."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PhotoHeader:
    """The upright photo's size, and the picture without whatever else is in the file but its orientation."""

    width_px: int
    height_px: int
    parts: Parts
    lacks_end: bool = False
    """A JPEG without the marker of its end: what it has of the picture may be all the same all of it."""


def check_size(width_px: int, height_px: int, pixels_max: int) -> None:
    """Refuse an image by its header with an ImageProblem: no pixels, too many, or a side over `MAX_SIDE_PX`."""
    if width_px < 1 or height_px < 1:
        raise ImageProblem("damaged", "the header is damaged: it has no size", "copy or export the image again")
    if width_px * height_px > pixels_max or max(width_px, height_px) > MAX_SIDE_PX:
        limit = f"{pixels_max:,} pixels" if width_px * height_px > pixels_max else f"{MAX_SIDE_PX:,} pixels a side"
        detail = f"{width_px} x {height_px} pixels are over the limit of {limit}"
        raise ImageProblem("too large", detail, "make the image smaller")


def _header(width_px: int, height_px: int, orientation: int, parts: Parts, *, lacks_end: bool = False) -> PhotoHeader:
    if orientation >= _SWAPS_SIDES:
        width_px, height_px = height_px, width_px
    return PhotoHeader(width_px=width_px, height_px=height_px, parts=parts, lacks_end=lacks_end)


def read_header(content: bytes, pixels_max: int = MAX_PIXELS) -> PhotoHeader:
    """Look at an encoded picture without decoding any of it; of an animation, at its first frame.

    Raises:
        ImageProblem: it is empty, damaged, too large, or none of JPEG, PNG and WebP.
    """
    if not content:
        raise ImageProblem("empty", "the file is empty", "replace or remove it")
    if content.startswith(PNG_SIGNATURE):
        found = _read_png_header(content)
    elif content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        found = _read_webp_header(content)
    elif content.startswith(JPEG_SIGNATURE):
        found = _read_jpeg_header(content)
    else:
        raise ImageProblem("unsupported format", "the content is not one of JPEG, PNG, WebP", "convert it first")
    check_size(found.width_px, found.height_px, pixels_max)
    return found


@dataclass(kw_only=True, slots=True)
class _JpegFound:
    """What the segments before the pixels hold."""

    frame_kind: int = 0
    frame: bytes = b""
    exif: bytes | None = None
    xmp: bytes | None = None
    kept: Parts = field(default_factory=list)
    kept_bytes: int = 0

    def take(self, kind: int, segment: memoryview) -> None:
        if kind == _APP1:
            body = bytes(segment[4:])
            if body.startswith(_EXIF_ID):
                self.exif = self.exif or body
            elif body.startswith(_XMP_ID):
                self.xmp = body
        if kind in JPEG_FRAMES:
            self.frame_kind, self.frame = kind, bytes(segment[4:])
        if kind not in JPEG_FRAMES and kind not in _JPEG_TABLES:
            return
        self.kept.append(segment)
        self.kept_bytes += len(segment)
        if self.kept_bytes > TABLES_BYTES_MAX:
            raise _damaged_jpeg(f"its tables take more than {TABLES_BYTES_MAX:,} bytes")

    def is_whole_in(self, scan: memoryview) -> bool:
        """Whether a scan is all of the picture, so that the decoder reads nothing that comes after it."""
        return self.frame_kind in JPEG_SEQUENTIAL and len(scan) > 4 and scan[4:5] == self.frame[5:6]


def _read_jpeg_header(content: bytes) -> PhotoHeader:
    """Walk over the markers, up to where the decoder stops: the end of the first picture, or its only scan.

    Strangers can put a marker into every fourth byte of a file; the walk ends at `SEGMENTS_MAX` of them, and what
    lies between is skipped at the speed of a search.
    """
    found, view = _JpegFound(), memoryview(content)
    pixels_at, scans, end_at = 0, 0, len(content)
    for kind, start, end in _jpeg_segments(content):
        if kind == _END_OF_IMAGE:
            end_at = end
            break
        if kind == _START_OF_SCAN:
            pixels_at = pixels_at or start
            scans += 1
            if scans > SCANS_MAX:
                raise ImageProblem("damaged", f"the JPEG has more than {SCANS_MAX} scans", "save it again")
            if found.is_whole_in(view[start:end]):
                break
        elif not pixels_at:
            if not start + 4 <= end <= len(content):
                raise _damaged_jpeg("a segment breaks off")
            found.take(kind, view[start:end])
    if len(found.frame) < _FRAME_BYTES or not pixels_at:
        raise _damaged_jpeg("there is no picture")
    orientation = _read_orientation(found.exif, found.xmp)
    width, height = int.from_bytes(found.frame[3:5], "big"), int.from_bytes(found.frame[1:3], "big")
    parts = [JPEG_SIGNATURE[:2], _exif_segment(orientation), *found.kept, view[pixels_at:end_at]]
    lacks_end = not content.endswith(JPEG_END) and content.find(JPEG_END, pixels_at) < 0
    return _header(width, height, orientation, parts, lacks_end=lacks_end)


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Kind, start and end of each segment; a marker without a length ends where its two bytes do."""
    position, between_max = 2, _FILL_BYTES_MAX
    for _ in range(SEGMENTS_MAX):
        marker = _JPEG_MARKER.search(content, position, position + between_max)
        if marker is None:
            return
        start, position = marker.span()
        kind = content[start + 1]
        if kind >= _FIRST_WITH_LENGTH and kind not in (_START_OF_IMAGE, _END_OF_IMAGE):
            position += int.from_bytes(content[position : position + 2], "big")
        if kind == _START_OF_SCAN:
            between_max = len(content)
        yield kind, start, position
    raise ImageProblem("damaged", f"the JPEG has more than {SEGMENTS_MAX:,} segments", "save it again")


def _exif_segment(orientation: int) -> bytes:
    """A segment of EXIF with the orientation alone; nothing for a photo that is upright."""
    if orientation == _UPRIGHT:
        return b""
    body = _EXIF_ID + _exif_with(orientation)
    return b"\xff\xe1" + (2 + len(body)).to_bytes(2, "big") + body


def _damaged_jpeg(reason: str) -> ImageProblem:
    return ImageProblem("damaged", f"the JPEG's header is damaged: {reason}", "save it again")


def _read_png_header(content: bytes) -> PhotoHeader:
    """Walk over a PNG's chunks."""
    if len(content) < _PNG_HEADER_BYTES or content[12:16] != b"IHDR":
        raise ImageProblem("damaged", "the PNG's header is damaged", "save it again")
    exif: bytes | None = None
    xmp: bytes | None = None
    view, parts = memoryview(content), Parts()
    for kind, start, end in _png_chunks(content):
        if kind == b"eXIf":
            exif = exif or content[start + 8 : end - 4]
        elif kind == b"iTXt" and content.startswith(_PNG_XMP, start + 8):
            xmp = content[start + 8 : end - 4]
        elif not kind[0] & _PNG_ANCILLARY or kind == b"tRNS":
            parts.append(view[start:end])
    orientation = _read_orientation(exif, xmp)
    if orientation != _UPRIGHT:
        turned = b"eXIf" + _exif_with(orientation)
        parts.insert(1, struct.pack(">I", len(turned) - 4) + turned + struct.pack(">I", zlib.crc32(turned)))
    width, height = struct.unpack(">II", content[16:24])
    return _header(width, height, orientation, [PNG_SIGNATURE, *parts])


def _read_webp_header(content: bytes) -> PhotoHeader:
    """Walk over a WebP's chunks."""
    width, height = _webp_size(content)
    if content[12:16] != b"VP8X" or len(content) < 30:
        return _header(width, height, _UPRIGHT, [content])
    exif: bytes | None = None
    xmp: bytes | None = None
    framed = False
    view, parts = memoryview(content), Parts()
    for kind, start, end in _webp_chunks(content):
        if kind == b"EXIF":
            exif = content[start + 8 : end]
        elif kind == b"XMP ":
            xmp = content[start + 8 : end]
        elif kind in _WEBP_PICTURE and not (kind == _WEBP_FRAME and framed):
            parts.append(view[start:end])
            framed = framed or kind == _WEBP_FRAME
    flags, orientation = content[20] & (_WEBP_ALPHA | _WEBP_ANIMATED), _read_orientation(exif, xmp)
    if orientation != _UPRIGHT:
        block = _exif_with(orientation)
        parts.append(b"EXIF" + struct.pack("<I", len(block)) + block)
        flags |= _WEBP_EXIF
    size = 4 + 18 + sum(map(len, parts))
    head = struct.pack("<4sI4s8sB", b"RIFF", size, b"WEBP", content[12:20], flags) + content[21:30]
    return _header(width, height, orientation, [head, *parts])


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk up to the last."""
    position = len(PNG_SIGNATURE)
    for _ in range(CHUNKS_MAX):
        if position + 8 > len(content):
            return
        kind = content[position + 4 : position + 8]
        end = position + 12 + int.from_bytes(content[position : position + 4], "big")
        yield kind, position, end
        if kind == b"IEND":
            return
        position = end
    raise _too_many("PNG")


def _webp_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk after the header; the end takes in the byte that makes it even."""
    position = 30
    for _ in range(CHUNKS_MAX):
        if position + 8 > len(content):
            return
        length = int.from_bytes(content[position + 4 : position + 8], "little")
        end = position + 8 + length + length % 2
        yield content[position : position + 4], position, end
        position = end
    raise _too_many("WebP")


def _webp_size(content: bytes) -> tuple[int, int]:
    """Size out of a WebP header; (0, 0) where it is damaged."""
    chunk, body = content[12:16], content[20:30]
    if len(body) < 10:
        return 0, 0
    if chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        return (int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF)
    return 0, 0


def _too_many(kind: str) -> ImageProblem:
    return ImageProblem("damaged", f"the {kind} has more than {CHUNKS_MAX:,} chunks", "save it again")


def _read_orientation(exif: bytes | None, xmp: bytes | None) -> int:
    """The orientation, 1 to 8; 1 where none is given or what gives it is damaged.

    Decoders build a table of every tag, and a block of EXIF can say that each of thousands is as long as the
    block; here one tag is looked for.
    """
    found = _from_exif(exif) if exif is not None else None
    if found is None and xmp is not None and (match := _XMP_ORIENTATION.search(xmp)):
        found = int(match[1])
    return found if found is not None and 1 <= found <= 8 else _UPRIGHT


def _exif_with(orientation: int) -> bytes:
    """The smallest EXIF that says it."""
    return struct.pack(">4sIHHHIHHI", b"MM\0*", 8, 1, _ORIENTATION_TAG, 3, 1, orientation, 0, 0)


def _from_exif(exif: bytes) -> int | None:
    tiff = exif.removeprefix(_EXIF_ID)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    if start + 2 > len(tiff):
        return None
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    for at in range(
        start + 2, min(start + 2 + count * _TIFF_ENTRY_BYTES, len(tiff) - _TIFF_ENTRY_BYTES + 1), _TIFF_ENTRY_BYTES
    ):
        tag, kind, values = struct.unpack_from(f"{order}HHI", tiff, at)
        if tag == _ORIENTATION_TAG:
            if kind not in _TIFF_INTEGERS or values != 1:
                return None
            (value,) = struct.unpack_from(f"{order}{_TIFF_INTEGERS[kind]}", tiff, at + 8)
            return int(value)
    return None
