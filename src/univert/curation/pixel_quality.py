"""How good a picture's pixels are: size, sharpness, exposure, compression and frame, each measured and explained.

Ours rather than `cleanvision`, which reads folders instead of bytes, knows neither compression nor frames, and brings
pandas, ImageHash and PyWavelets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Int16, UInt8
from PIL import Image

from univert.data.decode import decode_rgb, quantisation_tables
from univert.data.image_problem import ImageProblem

_MOST_LINES: Final = 160
"""Rows, and columns, that are looked at: enough for stable figures, and few enough for a photo of 12 megapixels."""
_EDGE_LAG_PX: Final = 6
_STRONG_SHARE: Final = 0.004
_LEAST_EDGE_LEVELS: Final = 12
"""Of 255: fainter edges say nothing about sharpness."""
_BLOCK_PX: Final = 8
_STANDARD_TABLE_SUM: Final = 898
"""Of the finer half of the brightness table in Annex K of the JPEG standard, which libjpeg uses at quality 50."""
_FRAME_SPREAD_LEVELS: Final = 10
_FRAME_EDGE_SHARE: Final = 0.5
_GROUND_LEVEL: Final = 240
"""Of 255: a lighter band is the ground of a product picture, and the product may be a box, a rug or a screen."""


_MIN_LENGTH_PX: Final = 64
"""The longer side, a third of what a network sees by default; a picture may be narrow."""
_MAX_EDGE_WIDTH_PX: Final = 2.1
"""Over how many pixels the strongest edges rise, 1 (sharp) to 6; the geometric mean of both directions."""
_MIN_LIGHT: Final = 100
"""Of 255: what the lightest hundredth of the pixels reaches."""
_MAX_DARK: Final = 225
"""Of 255: what the darkest hundredth does not exceed."""
_MIN_CONTRAST: Final = 20
"""Levels of brightness between those two."""
_MIN_JPEG_QUALITY: Final = 30
"""Of the last time it was saved, as libjpeg counts."""
_MAX_BLOCKINESS: Final = 1.5
"""Levels of brightness by which the edges of 8 px blocks stand out, divided by the root of the mean step between
neighbouring pixels, since texture hides them. On the home sample, quality 75 gives 0.7, and 25 gives 1.5."""
_MAX_FRAME_SHARE: Final = 0.1
"""Of the area, that a frame of one colour takes."""


@dataclass(frozen=True, kw_only=True)
class PixelQuality:
    """What was measured on a picture, and in plain words what is wrong with it.

    Attributes:
        measures: by name. `jpeg_quality` is there for JPEGs alone, and `edge_width_px` only where there are edges.
        reasons: why it is left out; empty if it is good.
    """

    measures: Mapping[str, float]
    reasons: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Nothing is wrong with it."""
        return not self.reasons


def rate_pixels(content: bytes) -> PixelQuality:
    """Measure one encoded picture, in any format that a catalogue takes; one that cannot be read says so.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> picture, file = Image.new("RGB", (60, 40), "white"), io.BytesIO()
        >>> picture.paste("brown", (5, 5, 55, 35))
        >>> picture.save(file, "PNG")
        >>> rate_pixels(file.getvalue()).reasons
        ('too small: 60 x 40 px, and 64 px is the least for the longer side',)
    """
    try:
        return rate_decoded(decode_rgb(content), content)
    except ImageProblem as problem:
        return PixelQuality(measures={}, reasons=(f"cannot be read: {problem}",))


def rate_decoded(image: Image.Image, content: bytes) -> PixelQuality:
    """The same of a picture that is decoded already, or of a part of it.

    Args:
        image: mode RGB.
        content: the encoded picture, which tells how strongly it was compressed.
    """
    measures = measure_pixels(np.asarray(image.convert("L")))
    if tables := quantisation_tables(content):
        measures["jpeg_quality"] = _jpeg_quality(tables[0])
    return PixelQuality(measures=measures, reasons=tuple(_reasons(measures)))


def measure_pixels(brightness: UInt8[np.ndarray, "H W"]) -> dict[str, float]:
    """The measures that need no file, of a picture's brightness (Pillow's mode `L`)."""
    height, width = brightness.shape
    shares = np.cumsum(np.bincount(brightness.ravel(), minlength=256)) / brightness.size
    dark, light = np.searchsorted(shares, [0.01, 0.99])
    rows = brightness[:: 1 + (height - 1) // _MOST_LINES].astype(np.int16)
    columns = brightness[:, :: 1 + (width - 1) // _MOST_LINES].T.astype(np.int16)
    measures = {"width_px": float(width), "height_px": float(height), "dark": float(dark), "light": float(light)}
    widths = [found for found in map(_edge_width, (rows, columns)) if found is not None]
    if widths:
        measures["edge_width_px"] = float(np.prod(widths)) ** (1 / len(widths))
    measures["blockiness"] = max(_blockiness(rows), _blockiness(columns))
    measures["frame_share"] = _frame_share(brightness)
    return measures


def _reasons(measures: Mapping[str, float]) -> Iterator[str]:
    width, height, dark, light = (round(measures[name]) for name in ("width_px", "height_px", "dark", "light"))
    edge, quality = measures.get("edge_width_px", 1.0), measures.get("jpeg_quality", 100.0)
    if max(width, height) < _MIN_LENGTH_PX:
        yield f"too small: {width} x {height} px, and {_MIN_LENGTH_PX} px is the least for the longer side"
    if edge > _MAX_EDGE_WIDTH_PX:
        yield f"blurred: its sharpest edges are {edge:.1f} px wide, and {_MAX_EDGE_WIDTH_PX:g} px is the most"
    if light < _MIN_LIGHT:
        yield f"too dark: its lightest parts have brightness {light} of 255, and {_MIN_LIGHT:g} is the least"
    elif dark > _MAX_DARK:
        yield f"too bright: its darkest parts have brightness {dark} of 255, and {_MAX_DARK:g} is the most"
    elif light - dark < _MIN_CONTRAST:
        yield f"flat: all its brightness lies between {dark} and {light} of 255"
    if quality < _MIN_JPEG_QUALITY:
        yield f"over-compressed: saved as JPEG at quality {quality:.0f}, and {_MIN_JPEG_QUALITY:g} is the least"
    elif measures["blockiness"] > _MAX_BLOCKINESS:
        yield "over-compressed: the blocks of an earlier JPEG show"
    if measures["frame_share"] > _MAX_FRAME_SHARE:
        yield f"framed: a border of one colour takes {100 * measures['frame_share']:.0f}% of it"


def _edge_width(lines: Int16[np.ndarray, "N L"]) -> float | None:
    """Over how many pixels the strongest edges along the lines rise; None where there are no edges."""
    if lines.shape[1] <= _EDGE_LAG_PX:
        return None
    far, near = (_strongest(lines, lag) for lag in (_EDGE_LAG_PX, 1))
    if far < _LEAST_EDGE_LEVELS:
        return None
    return min(max(far / max(near, 1.0), 1.0), float(_EDGE_LAG_PX))


def _strongest(lines: Int16[np.ndarray, "N L"], lag_px: int) -> float:
    """The least of the strongest steps over a lag: those of `_STRONG_SHARE` of all edges, each seen `lag` times."""
    counts = np.bincount(np.abs(lines[:, lag_px:] - lines[:, :-lag_px]).ravel(), minlength=256)
    return float(np.searchsorted(np.cumsum(counts), counts.sum() * (1 - lag_px * _STRONG_SHARE)))


def _blockiness(lines: Int16[np.ndarray, "N L"]) -> float:
    """How far steps at one of eight positions exceed those beside them: blocks of a picture cropped since count too."""
    if lines.shape[1] < 4 * _BLOCK_PX:
        return 0.0
    steps = np.abs(np.diff(lines, axis=1))
    excess: Float[np.ndarray, " L"] = (steps[:, 1:-1] - (steps[:, :-2] + steps[:, 2:]) / 2).mean(0)
    whole = len(excess) // _BLOCK_PX * _BLOCK_PX
    by_position = np.median(excess[:whole].reshape(-1, _BLOCK_PX), axis=0)
    return float((by_position.max() - np.median(by_position)) / np.sqrt(steps.mean() + 0.25))


def _frame_share(brightness: UInt8[np.ndarray, "H W"]) -> float:
    """Share of the area in bands of one colour along the sides that end in a straight edge.

    The plain ground around a product is no frame: what ends it is the product's outline.
    """
    height, width = brightness.shape
    top, bottom = _band(brightness), _band(brightness[::-1])
    left, right = _band(brightness.T), _band(brightness.T[::-1])
    inside = max(0, height - top - bottom) * max(0, width - left - right)
    return 1 - float(inside / (height * width))


def _band(lines: UInt8[np.ndarray, "N L"]) -> int:
    """How many lines from the first on have one colour and end in a straight edge; 0 if the edge is not straight."""
    colour = int(np.median(lines[0]))
    other = np.abs(lines.astype(np.int16) - colour) > _FRAME_SPREAD_LEVELS
    shares = other.mean(1)
    inside = np.flatnonzero(shares > 0.02)
    if colour >= _GROUND_LEVEL or not len(inside) or inside[0] == 0:
        return 0
    edge = shares[inside[0] : inside[0] + 2].max()
    return int(inside[0]) if edge >= _FRAME_EDGE_SHARE else 0


def _jpeg_quality(table: list[int]) -> float:
    """The quality at which libjpeg would use steps as coarse as these; the coarser half of them is cut off at 255."""
    scale = 100 * sum(sorted(table)[: len(table) // 2]) / _STANDARD_TABLE_SUM
    return float(np.clip(5000 / scale if scale > 100 else (200 - scale) / 2, 1, 100))
