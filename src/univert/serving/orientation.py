"""Which way up a photo is: read out of its EXIF or XMP, and nothing else of them."""

from __future__ import annotations

import re
import struct
from typing import Final

UPRIGHT: Final = 1
_SWAPS_SIDES: Final = 5
"""From this orientation on, an upright photo has width and height exchanged."""

_TAG: Final = 0x0112
_FORMATS: Final = {1: "B", 3: "H", 4: "I"}
"""TIFF's types of whole numbers."""
_ENTRY_BYTES: Final = 12
_EXIF_ID: Final = b"Exif\0\0"
_XMP: Final = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def swaps_sides(orientation: int) -> bool:
    """Whether turning the photo upright exchanges its width and height."""
    return orientation >= _SWAPS_SIDES


def read_orientation(exif: bytes | None, xmp: bytes | None) -> int:
    """The orientation, 1 to 8; 1 where none is given or what gives it is damaged.

    Decoders build a table of every tag, and a block of EXIF can say that each of thousands is as long as the
    block; here one tag is looked for.

    Args:
        exif: a TIFF structure, with or without the JPEG's `Exif` in front; None if there is none.
        xmp: asked where EXIF says nothing; None if there is none.
    """
    found = _from_exif(exif) if exif is not None else None
    if found is None and xmp is not None and (match := _XMP.search(xmp)):
        found = int(match[1])
    return found if found is not None and 1 <= found <= 8 else UPRIGHT


def exif_with(orientation: int) -> bytes:
    """The smallest EXIF that says it."""
    return struct.pack(">4sIHHHIHHI", b"MM\0*", 8, 1, _TAG, 3, 1, orientation, 0, 0)


def _from_exif(exif: bytes) -> int | None:
    tiff = exif.removeprefix(_EXIF_ID)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}I", tiff, 4)
    if start + 2 > len(tiff):
        return None
    (count,) = struct.unpack_from(f"{order}H", tiff, start)
    for at in range(start + 2, min(start + 2 + count * _ENTRY_BYTES, len(tiff) - _ENTRY_BYTES + 1), _ENTRY_BYTES):
        tag, kind, values = struct.unpack_from(f"{order}HHI", tiff, at)
        if tag == _TAG:
            if kind not in _FORMATS or values != 1:
                return None
            (value,) = struct.unpack_from(f"{order}{_FORMATS[kind]}", tiff, at + 8)
            return int(value)
    return None
