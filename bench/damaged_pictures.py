"""Copies of pictures, damaged in ways that image search meets: several ways of each kind."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image, ImageFilter

Damage = Callable[[Image.Image, np.random.Generator], bytes]


def encoded(image: Image.Image, quality: int = 88) -> bytes:
    """The picture as JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def again(image: Image.Image, quality: int) -> Image.Image:
    """What is left of a picture saved as JPEG."""
    return Image.open(io.BytesIO(encoded(image, quality))).convert("RGB")


def _small(image: Image.Image, rng: np.random.Generator) -> bytes:
    image.thumbnail((int(rng.integers(24, 60)),) * 2)
    return encoded(image)


def _gaussian(image: Image.Image, rng: np.random.Generator) -> bytes:
    return encoded(image.filter(ImageFilter.GaussianBlur(rng.uniform(2, 4))))


def _box_blur(image: Image.Image, rng: np.random.Generator) -> bytes:
    return encoded(image.filter(ImageFilter.BoxBlur(rng.uniform(3, 6))))


def _motion(image: Image.Image, rng: np.random.Generator) -> bytes:
    reach, axis = int(rng.integers(7, 15)), int(rng.integers(2))
    pixels = np.asarray(image, np.float32)
    moved = np.mean([np.roll(pixels, step, axis) for step in range(reach)], axis=0)
    return encoded(Image.fromarray(moved.astype(np.uint8)))


def _enlarged(image: Image.Image, rng: np.random.Generator) -> bytes:
    less = rng.uniform(3.5, 6)
    small = image.resize((max(8, int(image.width / less)), max(8, int(image.height / less))))
    return encoded(small.resize(image.size, Image.Resampling.BICUBIC))


def _levels(image: Image.Image, curve: Callable[[np.ndarray], np.ndarray]) -> bytes:
    shown = curve(np.asarray(image, np.float32) / 255)
    return encoded(Image.fromarray((255 * shown.clip(0, 1)).astype(np.uint8)))


def _dimmed(image: Image.Image, rng: np.random.Generator) -> bytes:
    factor = rng.uniform(0.1, 0.3)
    return _levels(image, lambda x: factor * x)


def _dark_gamma(image: Image.Image, rng: np.random.Generator) -> bytes:
    gamma = rng.uniform(8, 14)
    return _levels(image, lambda x: (0.95 * x) ** gamma)


def _overexposed(image: Image.Image, rng: np.random.Generator) -> bytes:
    gain = rng.uniform(0.9, 0.97)
    return _levels(image, lambda x: gain + (1 - gain) * x)


def _flat(image: Image.Image, rng: np.random.Generator) -> bytes:
    level = rng.uniform(0.3, 0.7)
    return _levels(image, lambda x: level + 0.06 * (x - 0.5))


def _low_quality(image: Image.Image, rng: np.random.Generator) -> bytes:
    return encoded(image, int(rng.integers(4, 20)))


def _saved_again(image: Image.Image, rng: np.random.Generator) -> bytes:
    return encoded(again(image, int(rng.integers(4, 12))), 90)


def _cropped_since(image: Image.Image, rng: np.random.Generator) -> bytes:
    poor = again(image, int(rng.integers(4, 12)))
    x, y = int(rng.integers(1, 8)), int(rng.integers(1, 8))
    return encoded(poor.crop((x, y, poor.width, poor.height)), 92)


def _letterbox(image: Image.Image, rng: np.random.Generator) -> bytes:
    band = int(rng.uniform(0.1, 0.3) * image.height)
    canvas = Image.new("RGB", (image.width, image.height + 2 * band), ("black", "dimgrey", "navy")[rng.integers(3)])
    canvas.paste(image, (0, band))
    return encoded(canvas)


def _frame(image: Image.Image, rng: np.random.Generator) -> bytes:
    band = int(rng.uniform(0.06, 0.2) * image.width)
    colour = ("black", "crimson", (90, 90, 90))[rng.integers(3)]
    canvas = Image.new("RGB", (image.width + 2 * band, image.height + 2 * band), colour)
    canvas.paste(image, (band, band))
    return encoded(canvas)


PIXEL_DAMAGE: Final[dict[str, dict[str, Damage]]] = {
    "small": {"shrunk": _small},
    "blurred": {"gaussian": _gaussian, "box": _box_blur, "motion": _motion, "enlarged": _enlarged},
    "exposure": {"dimmed": _dimmed, "dark gamma": _dark_gamma, "overexposed": _overexposed, "flat": _flat},
    "compressed": {"low quality": _low_quality, "saved again": _saved_again, "cropped since": _cropped_since},
    "framed": {"letterbox": _letterbox, "frame": _frame},
}
"""Kind of damage -> way of doing it -> function."""
