"""Copies of pictures, damaged in ways that image search meets: several ways of each kind, for benches of rating."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Damage = Callable[[Image.Image, np.random.Generator], bytes]

WORDS: Final = ("SALE", "sample", "Preview", "photo-shop.com", "© stock", "50% OFF", "Möbel", "free shipping", "home24")


def encoded(image: Image.Image, quality: int = 88) -> bytes:
    """The picture as JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def again(image: Image.Image, quality: int) -> Image.Image:
    """What is left of a picture saved as JPEG."""
    return Image.open(io.BytesIO(encoded(image, quality))).convert("RGB")


def _small(image: Image.Image, rng: np.random.Generator) -> bytes:
    image.thumbnail((int(rng.integers(40, 95)),) * 2)
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
    canvas = Image.new("RGB", (image.width, image.height + 2 * band), ("black", "white", "navy")[rng.integers(3)])
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


def _text(rng: np.random.Generator, words: int = 1) -> str:
    return " ".join(rng.choice(WORDS, words))


def _layer(image: Image.Image) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    layer = Image.new("RGBA", image.size)
    return layer, ImageDraw.Draw(layer)


def _with_layer(image: Image.Image, layer: Image.Image) -> bytes:
    return encoded(Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB"))


def _ink(rng: np.random.Generator, low: int = 90, high: int = 200) -> tuple[int, int, int, int]:
    colour = ((255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 30, 30), (30, 60, 160))[rng.integers(5)]
    return (*colour, int(rng.integers(low, high)))


def overlay(way: str, image: Image.Image, font: str, rng: np.random.Generator) -> bytes:
    """Text or a watermark laid over a picture.

    Args:
        way: one of `OVERLAYS`.
        image: mode RGB.
        font: a font's file.
        rng: draws words, places, sizes and colours.
    """
    layer, draw = _layer(image)
    width, height = image.size

    def sized(low: float, high: float) -> ImageFont.FreeTypeFont:
        return ImageFont.truetype(font, max(9, int(rng.uniform(low, high) * height)))

    if way == "tiled":
        letters, text, ink = sized(0.05, 0.09), _text(rng, 2), _ink(rng)
        step = int(rng.uniform(0.16, 0.3) * height)
        for line, y in enumerate(range(-height, 2 * height, step)):
            draw.text((-(line % 2) * step, y), "   ".join([text] * 8), ink, letters)
        layer = layer.rotate(float(rng.uniform(15, 45)))
    elif way == "centre":
        draw.text((width / 2, height / 2), _text(rng), _ink(rng), sized(0.12, 0.24), anchor="mm")
        layer = layer.rotate(float(rng.choice([0, 0, 30, 45])))
    elif way == "corner":
        right, low = rng.integers(2, size=2)
        place = (width * (0.97 if right else 0.03), height * (0.97 if low else 0.03))
        draw.text(place, _text(rng), _ink(rng, 160, 255), sized(0.06, 0.1), anchor="lr"[right] + "td"[low])
    elif way == "banner":
        top = int(rng.choice([0, 0.8]) * height)
        draw.rectangle((0, top, width, top + 0.2 * height), _ink(rng, 180, 255))
        draw.text((width / 2, top + 0.1 * height), _text(rng, 2), (255, 255, 0, 255), sized(0.08, 0.12), anchor="mm")
    elif way == "badge":
        radius, x, y = rng.uniform(0.12, 0.2) * height, *(rng.choice([0.2, 0.8], 2) * (width, height))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), _ink(rng, 200, 255))
        draw.text((x, y), f"-{rng.integers(5, 90)}%", (255, 255, 255, 255), sized(0.08, 0.12), anchor="mm")
    else:  # caption: lines of small print
        letters = sized(0.04, 0.06)
        for line in range(int(rng.integers(2, 5))):
            draw.text((0.05 * width, (0.1 + 0.07 * line) * height), _text(rng, 4), _ink(rng, 180, 255), letters)
    return _with_layer(image, layer)


OVERLAYS: Final = ("tiled", "centre", "corner", "banner", "badge", "caption")
