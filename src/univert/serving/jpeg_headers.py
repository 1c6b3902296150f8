"""The markers of a JPEG, walked once: how large the picture is, where it ends, and what a decoder needs of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from univert.serving.orientation import UPRIGHT, exif_with, read_orientation
from univert.serving.problems import Problem
from univert.serving.stored_photos import Parts, StoredHeader

SIGNATURE: Final = b"\xff\xd8\xff"
SEGMENTS_MAX: Final = 1_000
"""A photo has about ten; a colour profile or a depth map in pieces of 64 kB makes them a few hundred."""
TABLES_BYTES_MAX: Final = 262_144
"""Tables before the pixels, which the decoder reads at its leisure; a photo's take 3 kB, its JFIF thumbnail 60."""

_FILL_BYTES_MAX: Final = 65_536
"""Between two segments before the pixels; usual are none."""

_MARKER: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Not 00, which says that the FF is a pixel's; not FF, which fills; not a restart, which stands in the pixels."""

_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
_APP1, _FIRST_WITH_LENGTH = 0xE1, 0xC0
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL: Final = (0xC0, 0xC1)
_TABLES: Final = frozenset({0xC4, 0xCC, 0xDB, 0xDD, 0xE0, 0xEE})
"""Huffman, arithmetic and quantisation tables, restart interval; JFIF and Adobe, which tell the colours' kind."""

_FRAME_BYTES: Final = 6
_EXIF_ID: Final = b"Exif\0\0"
_XMP_ID: Final = b"http://ns.adobe.com/xap/1.0/\0"


@dataclass(kw_only=True, slots=True)
class _Found:
    """What the segments before the pixels hold."""

    frame_kind: int = 0
    frame: bytes = b""
    exif: bytes | None = None
    xmp: bytes | None = None
    kept: Parts = field(default_factory=list)
    kept_bytes: int = 0

    def take(self, kind: int, segment: memoryview) -> None:
        if kind == _APP1:
            self._take_metadata(bytes(segment[4:]))
        if kind in _FRAMES:
            self.frame_kind, self.frame = kind, bytes(segment[4:])
        if kind not in _FRAMES and kind not in _TABLES:
            return
        self.kept.append(segment)
        self.kept_bytes += len(segment)
        if self.kept_bytes > TABLES_BYTES_MAX:
            raise _damaged(f"its tables take more than {TABLES_BYTES_MAX:,} bytes")

    def is_whole_in(self, scan: memoryview) -> bool:
        """Whether a scan is all of the picture, so that the decoder reads nothing that comes after it."""
        components = self.frame[5:6]
        return self.frame_kind in _SEQUENTIAL and len(scan) > 4 and scan[4:5] == components

    def _take_metadata(self, body: bytes) -> None:
        if body.startswith(_EXIF_ID):
            self.exif = self.exif or body
        elif body.startswith(_XMP_ID):
            self.xmp = body


def read_jpeg_header(content: bytes, scans_max: int) -> StoredHeader:
    """Walk over the markers, up to where the decoder stops: the end of the first picture, or its only scan.

    Strangers can put a marker into every fourth byte of a file; the walk ends at `SEGMENTS_MAX` of them, and what
    lies between is skipped at the speed of a search.

    Args:
        content: a file that begins with `SIGNATURE`.
        scans_max: scans of a progressive JPEG at most.

    Raises:
        Problem: `bad-photo`.
    """
    found, view = _Found(), memoryview(content)
    pixels_at, scans, end_at = 0, 0, len(content)
    for kind, start, end in _segments(content):
        if kind == _END_OF_IMAGE:
            end_at = end
            break
        if kind == _START_OF_SCAN:
            pixels_at = pixels_at or start
            scans += 1
            if scans > scans_max:
                raise Problem("bad-photo", f"the JPEG has more than {scans_max} scans; save it again")
            if found.is_whole_in(view[start:end]):
                break
        elif not pixels_at:
            if not start + 4 <= end <= len(content):
                raise _damaged("a segment breaks off")
            found.take(kind, view[start:end])
    if len(found.frame) < _FRAME_BYTES or not pixels_at:
        raise _damaged("there is no picture")
    orientation = read_orientation(found.exif, found.xmp)
    return StoredHeader(
        width_px=int.from_bytes(found.frame[3:5], "big"),
        height_px=int.from_bytes(found.frame[1:3], "big"),
        orientation=orientation,
        parts=[SIGNATURE[:2], _turned(orientation), *found.kept, view[pixels_at:end_at]],
    )


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Kind, start and end of each segment; a marker without a length ends where its two bytes do."""
    position, between_max = 2, _FILL_BYTES_MAX
    for _ in range(SEGMENTS_MAX):
        marker = _MARKER.search(content, position, position + between_max)
        if marker is None:
            return
        start, position = marker.span()
        kind = content[start + 1]
        if kind >= _FIRST_WITH_LENGTH and kind not in (_START_OF_IMAGE, _END_OF_IMAGE):
            position += int.from_bytes(content[position : position + 2], "big")
        if kind == _START_OF_SCAN:
            between_max = len(content)
        yield kind, start, position
    raise Problem("bad-photo", f"the JPEG has more than {SEGMENTS_MAX:,} segments; save it again")


def _turned(orientation: int) -> bytes:
    """A segment of EXIF with the orientation alone; nothing for a photo that is upright."""
    if orientation == UPRIGHT:
        return b""
    body = _EXIF_ID + exif_with(orientation)
    return b"\xff\xe1" + (2 + len(body)).to_bytes(2, "big") + body


def _damaged(reason: str) -> Problem:
    return Problem("bad-photo", f"the JPEG's header is damaged: {reason}; save it again")
