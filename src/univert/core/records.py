"""The words of the project as types: what one image of a catalogue is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")
"""The split names a catalogue knows; an image may also be in none (None)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRow:
    """One image as a reader found it, before it is checked and enters a catalogue.

    Exactly one of `path` and `image` is set.

    Attributes:
        origin: where the row came from, for messages: a file name, or `manifest.csv:12`.
        vertical: the vertical's name.
        path: the image file.
        image: the encoded image itself.
        id: unique name of the image; None lets the catalogue derive one.
        product: the identity; None means unlabelled.
        brand: who makes the product, if known.
        style: the product's type within the vertical, if known.
        split: `train`, `val` or `test`; None lets the catalogue decide.
        source: where the image was taken from (a shop photo, a user's photo, a collection).
        box_xyxy_px: the item within the image (x0, y0, x1, y1), in pixels of the upright image.
    """

    origin: str
    vertical: str
    path: Path | None = None
    image: bytes | None = None
    id: str | None = None
    product: str | None = None
    brand: str | None = None
    style: str | None = None
    split: str | None = None
    source: str | None = None
    box_xyxy_px: tuple[float, float, float, float] | None = None
