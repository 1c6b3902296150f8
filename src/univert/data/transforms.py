"""From a decoded image to the network's square, clean or augmented; never dependent on order."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from univert.core.errors import BadInputError
from univert.data.decode import BoxXyxyPx

Fit = Literal["pad", "crop", "stretch"]

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an upright RGB image becomes the square that the network sees.

    Calling it does one antialiased bicubic resize, straight from the part of the image that is wanted.

    Attributes:
        image_size_px: side of the square.
        fit: `pad` keeps everything and fills up with the background, `crop` takes the central square,
            `stretch` changes the aspect ratio.
        background_rgb: the colour of padding, and behind transparent pixels.
        centre_share: side of the central part that is shown, as a share of the whole: 227/256 is "resize to 256,
            crop 227". Augmented views are drawn from the whole.

    Raises:
        BadInputError: a value is out of range.

    Example:
        >>> from PIL import Image
        >>> Preprocessing(image_size_px=64)(Image.new("RGB", (200, 100))).shape
        (64, 64, 3)
    """

    image_size_px: int = 192
    fit: Fit = "pad"
    background_rgb: tuple[int, int, int] = (255, 255, 255)
    centre_share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.centre_share <= 1:
            raise BadInputError(f"centre_share must lie in (0, 1], got {self.centre_share}; 1 shows all")
        if not 8 <= self.image_size_px <= 4096:
            raise BadInputError(f"image_size_px must lie in 8..4096, got {self.image_size_px}; try 128, 192 or 224")
        if self.fit not in ("pad", "crop", "stretch"):
            raise BadInputError(f'fit must be "pad", "crop" or "stretch", got {self.fit!r}')
        rgb = self.background_rgb
        if len(rgb) != 3 or not all(0 <= value <= 255 for value in rgb):
            raise BadInputError(f"background_rgb must be three values in 0..255, got {rgb!r}; white is 255, 255, 255")

    def __call__(self, image: Image.Image) -> UInt8[np.ndarray, "S S 3"]:
        """Fit an upright PIL image in mode RGB, of any size, into the square (height, width, RGB)."""
        x0, y0, x1, y1 = self.frame_xyxy_px(image.size)
        across, down = (1 - self.centre_share) * (x1 - x0) / 2, (1 - self.centre_share) * (y1 - y0) / 2
        return np.asarray(self.render(image, (x0 + across, y0 + down, x1 - across, y1 - down)))

    def frame_xyxy_px(self, size: tuple[int, int]) -> BoxXyxyPx:
        """The whole square of an image of (width, height), reaching outside it when padding."""
        width, height = size
        if self.fit == "stretch":
            return 0.0, 0.0, float(width), float(height)
        side = max(size) if self.fit == "pad" else min(size)
        x0, y0 = (width - side) / 2, (height - side) / 2
        return x0, y0, x0 + side, y0 + side

    def render(self, image: Image.Image, box_xyxy_px: BoxXyxyPx) -> Image.Image:
        """Draw one part of an RGB image, in its pixels, as the square; what lies outside becomes background."""
        size, resample = self.image_size_px, Image.Resampling.BICUBIC
        x0, y0, x1, y1 = box_xyxy_px
        inside = (max(x0, 0.0), max(y0, 0.0), min(x1, float(image.width)), min(y1, float(image.height)))
        if inside == box_xyxy_px:
            whole = box_xyxy_px == (0.0, 0.0, float(size), float(size)) and image.size == (size, size)
            return image if whole else image.resize((size, size), resample, box=box_xyxy_px)
        canvas = Image.new("RGB", (size, size), self.background_rgb)
        left, right = _target_span(inside[0], inside[2], x0, x1, size)
        top, bottom = _target_span(inside[1], inside[3], y0, y1, size)
        if right > left and bottom > top:
            canvas.paste(image.resize((right - left, bottom - top), resample, box=inside), (left, top))
        return canvas


def _target_span(start: float, stop: float, low: float, high: float, size: int) -> tuple[int, int]:
    """Where [start, stop] of [low, high] falls in `size` pixels: at least one pixel if it is not empty."""
    if stop <= start:
        return 0, 0
    scale = size / (high - low)
    length = min(size, max(1, round((stop - start) * scale)))
    first = min(size - length, max(0, round((start - low) * scale)))
    return first, first + length


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes that a product survives: crop, aspect, mirror, light, colour.

    All of them are drawn from the generator that is passed in, always the same number of draws in the same
    order, so that switching one off leaves the others as they were.

    Attributes:
        min_scale: smallest part of the frame's area that a crop keeps.
        max_scale: largest part.
        max_aspect: a crop's width over height lies in [1 / max_aspect, max_aspect], relative to the frame.
        flip_probability: how often the image is mirrored left to right.
        jitter: brightness, contrast (around the image's mean grey) and saturation (around each pixel's own grey) are
            each multiplied by a factor of their own in [1 - jitter, 1 + jitter].
        box_jitter: of an image with a box, such as an item of a scene: each side of the box moves by up to this share
            of its width or height, since a detector's boxes are not exact either.

    Raises:
        BadInputError: a value is out of range.
    """

    min_scale: float = 0.6
    max_scale: float = 1.0
    max_aspect: float = 1.25
    flip_probability: float = 0.5
    jitter: float = 0.2
    box_jitter: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.min_scale <= self.max_scale <= 1:
            raise BadInputError(
                f"min_scale and max_scale must satisfy 0 < min_scale <= max_scale <= 1, "
                f"got {self.min_scale} and {self.max_scale}"
            )
        if not 1 <= self.max_aspect <= 4:
            raise BadInputError(f"max_aspect must lie in 1..4, got {self.max_aspect}; 1 keeps the aspect ratio")
        for name in ("flip_probability", "jitter"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInputError(f"{name} must lie in 0..1, got {getattr(self, name)}; 0 switches it off")
        if not 0 <= self.box_jitter <= 0.4:
            raise BadInputError(f"box_jitter must lie in 0..0.4, got {self.box_jitter}; 0 keeps boxes as they are")

    def apply(
        self, image: Image.Image, preprocessing: Preprocessing, rng: np.random.Generator
    ) -> UInt8[np.ndarray, "S S 3"]:
        """One augmented square of an upright PIL image in mode RGB; for `rng` see `view_rng`."""
        box_xyxy_px, flipped = self.view(image.size, preprocessing, rng)
        square = preprocessing.render(image, box_xyxy_px)
        if flipped:
            square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.jitter:
            square = _jitter(square, *(1 + (2 * draw - 1) * self.jitter for draw in rng.random(3).tolist()))
        return np.asarray(square)

    def moved_box(self, box_xyxy_px: BoxXyxyPx, rng: np.random.Generator) -> BoxXyxyPx:
        """A box with its sides moved; it may then reach outside the image, to which cropping limits it."""
        x0, y0, x1, y1 = box_xyxy_px
        left, top, right, bottom = ((2 * draw - 1) * self.box_jitter for draw in rng.random(4).tolist())
        width, height = x1 - x0, y1 - y0
        return x0 + left * width, y0 + top * height, x1 + right * width, y1 + bottom * height

    def view(
        self, size: tuple[int, int], preprocessing: Preprocessing, rng: np.random.Generator
    ) -> tuple[BoxXyxyPx, bool]:
        """The part of an image of (width, height) that `apply` shows, and whether it is mirrored."""
        area, aspect, across, down, flip = rng.random(5).tolist()
        x0, y0, x1, y1 = preprocessing.frame_xyxy_px(size)
        scale = math.sqrt(self.min_scale + area * (self.max_scale - self.min_scale))
        stretch = math.exp((aspect - 0.5) * math.log(self.max_aspect))
        # a crop must not leave the frame just because its aspect was changed
        width = min((x1 - x0) * scale * stretch, x1 - x0)
        height = min((y1 - y0) * scale / stretch, y1 - y0)
        left, top = x0 + across * (x1 - x0 - width), y0 + down * (y1 - y0 - height)
        return (left, top, left + width, top + height), flip < self.flip_probability


def _jitter(image: Image.Image, brightness: float, contrast: float, saturation: float) -> Image.Image:
    """Brightness, contrast, saturation: all linear in RGB, so one matrix does the three in one pass."""
    mean = image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    assert isinstance(mean, tuple)
    grey = sum(weight * value for weight, value in zip(_LUMA, mean, strict=True)) * brightness
    gain = brightness * contrast
    offset = (1 - contrast) * grey
    rows: list[float] = []
    for channel in range(3):
        mixed = [(1 - saturation) * weight + (saturation if channel == c else 0.0) for c, weight in enumerate(_LUMA)]
        rows += [gain * value for value in mixed] + [offset]
    return image.convert("RGB", matrix=tuple(rows))


def view_rng(seed: int, image_id: str, view: int) -> np.random.Generator:
    """The generator behind one augmented view (from 1) of one image: the same in every process and order."""
    digest = hashlib.blake2b(f"{seed}\0{view}\0{image_id}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
