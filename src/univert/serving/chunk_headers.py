"""The chunks of a PNG or a WebP, walked once: how large the picture is, and what a decoder needs of it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

from univert.serving.orientation import UPRIGHT, exif_with, read_orientation
from univert.serving.problems import Problem
from univert.serving.stored_photos import Parts, StoredHeader

PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
CHUNKS_MAX: Final = 20_000
"""Of a PNG of 15 MB with its pixels in chunks of 1 kB there are 15,000; common are 8 kB and more."""

_PNG_HEADER_BYTES: Final = 33
_PNG_ANCILLARY: Final = 0x20
"""This bit of a chunk's first letter says that the picture can be shown without it."""
_PNG_XMP: Final = b"XML:com.adobe.xmp\0"
_WEBP_ANIMATED: Final = 0x02
_WEBP_ALPHA: Final = 0x10
_WEBP_EXIF: Final = 0x08
_WEBP_PICTURE: Final = (b"ALPH", b"VP8 ", b"VP8L")


def is_webp(content: bytes) -> bool:
    """Whether a file begins as a WebP does."""
    return content[:4] == b"RIFF" and content[8:12] == b"WEBP"


def read_png_header(content: bytes) -> StoredHeader:
    """Walk over a PNG's chunks.

    Args:
        content: a file that begins with `PNG_SIGNATURE`.

    Raises:
        Problem: `bad-photo`.
    """
    if len(content) < _PNG_HEADER_BYTES or content[12:16] != b"IHDR":
        raise Problem("bad-photo", "the PNG's header is damaged")
    exif: bytes | None = None
    xmp: bytes | None = None
    view, parts = memoryview(content), Parts()
    for kind, start, end in _png_chunks(content):
        if kind == b"acTL":
            raise Problem("bad-photo", "the PNG is animated; send one still picture")
        if kind == b"eXIf":
            exif = exif or content[start + 8 : end - 4]
        elif kind == b"iTXt" and content.startswith(_PNG_XMP, start + 8):
            xmp = content[start + 8 : end - 4]
        elif not kind[0] & _PNG_ANCILLARY or kind == b"tRNS":
            parts.append(view[start:end])
    orientation = read_orientation(exif, xmp)
    if orientation != UPRIGHT:
        turned = b"eXIf" + exif_with(orientation)
        parts.insert(1, struct.pack(">I", len(turned) - 4) + turned + struct.pack(">I", zlib.crc32(turned)))
    width, height = struct.unpack(">II", content[16:24])
    return StoredHeader(width_px=width, height_px=height, orientation=orientation, parts=[PNG_SIGNATURE, *parts])


def read_webp_header(content: bytes) -> StoredHeader:
    """Walk over a WebP's chunks.

    Args:
        content: a file for which `is_webp` holds.

    Raises:
        Problem: `bad-photo`.
    """
    width, height = _webp_size(content)
    if content[12:16] != b"VP8X" or len(content) < 30:
        return StoredHeader(width_px=width, height_px=height, orientation=UPRIGHT, parts=[content])
    exif: bytes | None = None
    xmp: bytes | None = None
    view, parts = memoryview(content), Parts()
    for kind, start, end in _webp_chunks(content):
        if kind == b"EXIF":
            exif = content[start + 8 : end]
        elif kind == b"XMP ":
            xmp = content[start + 8 : end]
        elif kind in _WEBP_PICTURE:
            parts.append(view[start:end])
    flags, orientation = content[20] & _WEBP_ALPHA, read_orientation(exif, xmp)
    if orientation != UPRIGHT:
        block = exif_with(orientation)
        parts.append(b"EXIF" + struct.pack("<I", len(block)) + block)
        flags |= _WEBP_EXIF
    size = 4 + 18 + sum(map(len, parts))
    head = struct.pack("<4sI4s8sB", b"RIFF", size, b"WEBP", content[12:20], flags) + content[21:30]
    return StoredHeader(width_px=width, height_px=height, orientation=orientation, parts=[head, *parts])


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
        if body[0] & _WEBP_ANIMATED:
            raise Problem("bad-photo", "the WebP is animated; send one still picture")
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        return (int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF)
    return 0, 0


def _too_many(kind: str) -> Problem:
    return Problem("bad-photo", f"the {kind} has more than {CHUNKS_MAX:,} chunks; save it again")
