"""What is told of an encoded photo before any of it is decoded, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass

Parts = list[bytes | memoryview]
"""Pieces of a file, to be joined."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredHeader:
    """What the header of a file tells.

    Attributes:
        width_px: as stored, not turned.
        height_px: as stored.
        orientation: as EXIF counts it, 1 to 8.
        parts: the picture without whatever else is in the file; of the metadata it has the orientation.
    """

    width_px: int
    height_px: int
    orientation: int
    parts: Parts
