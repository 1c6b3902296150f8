"""Drawings of the glyph data set: one character in one face as a small grey image; when two are the same."""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from glyph_fonts import Face

SIDE_PX = 48
EM_PX = 36
"""Height of the em, the same for every font: an ideograph fills about 34 px, a capital 26."""

LARGEST_INK_PX = 44
"""Glyphs beyond this are made smaller instead of being cut off: long Arabic letters, wide symbols."""

SAME_DRAWING = 0.03
"""Two drawings of a character are the same below this gap; see `Kept`.

Measured: regional faces that share a drawing, and one outline in two hintings, lie below 0.01; what differs
by a hair in weight lies around 0.03; similar typefaces of different makers start at 0.04.
"""

LEAST_INK_PX = 4.0
"""Drawings with less than this many black pixels show nothing."""

_ROOM_PX = 4 * EM_PX
_MISSING = "\U0010ffff"  # a noncharacter: no font draws it, so every font draws its .notdef

Ink = npt.NDArray[np.uint8]
"""A drawing: (48, 48), 0 where the ground shows, 255 where it is black."""


def draw(face: Face, character: str) -> Ink | None:
    """A character in one face, its ink in the middle of a square of `SIDE_PX`.

    Returns:
        None where the face draws nothing or its `.notdef` box, or cannot draw it.
    """
    ink = _draw(face, character)
    missing = _missing(face)
    return None if ink is None or (missing is not None and np.array_equal(ink, missing)) else ink


def survey(faces: Sequence[Face], character: str) -> list[tuple[int, int, bool]]:
    """What some faces make of a character.

    Args:
        faces: the more important first.
        character: to draw.

    Returns:
        for each face that draws it: its place in `faces`, a hash of the pixels, and whether the drawing differs
        from those of all faces before it.
    """
    found: list[tuple[int, int, bool]] = []
    kept = Kept(len(faces))
    for place, face in enumerate(faces):
        ink = draw(face, character)
        if ink is not None:
            digest = hashlib.blake2b(ink.tobytes(), digest_size=8).digest()
            found.append((place, int.from_bytes(digest, "big"), kept.is_new(ink)))
    return found


class Kept:
    """Drawings of one character that differ from each other.

    Two drawings a and b, at half size, are the same where |a - b|^2 < `SAME_DRAWING` (|a|^2 + |b|^2).

    Args:
        room: how many there may be.
    """

    def __init__(self, room: int) -> None:
        self._count = 0
        self._drawings = np.empty((room, (SIDE_PX // 2) ** 2), np.float32)
        self._squares = np.empty(room, np.float32)

    def is_new(self, ink: Ink) -> bool:
        """Whether no kept drawing is the same as this one; if so it is kept, too."""
        half = ink.reshape(SIDE_PX // 2, 2, SIDE_PX // 2, 2).sum(axis=(1, 3), dtype=np.float32).reshape(-1)
        square = half @ half
        drawings, squares = self._drawings[: self._count], self._squares[: self._count] + square
        if self._count and (squares - 2 * drawings @ half < SAME_DRAWING * squares).any():
            return False
        self._drawings[self._count], self._squares[self._count] = half, square
        self._count += 1
        return True


def encode(ink: Ink) -> bytes:
    """A drawing as PNG, black on white."""
    buffer = io.BytesIO()
    Image.fromarray(255 - ink).save(buffer, "PNG")
    return buffer.getvalue()


def _draw(face: Face, character: str) -> Ink | None:
    room = Image.new("L", (_ROOM_PX, _ROOM_PX), 0)
    middle = (_ROOM_PX // 2, _ROOM_PX // 2)
    try:
        ImageDraw.Draw(room).text(middle, character, fill=255, font=_font(face), anchor="ms")
    except OSError:  # broken hinting instructions
        return None
    box = room.getbbox()
    if box is None or min(box[:2]) == 0 or max(box[2:]) == _ROOM_PX:
        return None
    glyph = room.crop(box)
    glyph.thumbnail((LARGEST_INK_PX, LARGEST_INK_PX), Image.Resampling.LANCZOS)
    pixels = np.asarray(glyph)
    if pixels.sum() < 255 * LEAST_INK_PX:
        return None
    height, width = pixels.shape
    top, left = (SIDE_PX - height) // 2, (SIDE_PX - width) // 2
    ink = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    ink[top : top + height, left : left + width] = pixels
    return ink


@functools.cache
def _font(face: Face) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(face.path), EM_PX, face.index, layout_engine=ImageFont.Layout.BASIC)


@functools.cache
def _missing(face: Face) -> Ink | None:
    return _draw(face, _MISSING)
