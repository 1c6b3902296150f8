"""Tiny scenes drawn by code: discs and squares on a grey floor."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from univert.data.rows import Item, SourceRow
from univert.detection.config import DetectorConfig
from univert.training.detection_recipe import DetectionLoop, DetectionRecipe

VERTICALS = ("discs", "squares")
CONFIG = DetectorConfig(
    base_network="timm/test_resnet", pretrained=False, channels=16, verticals=VERTICALS, image_size_px=64
)
RECIPE = DetectionRecipe(
    views=2,
    detector=replace(CONFIG, verticals=()),
    loop=DetectionLoop(epochs=1, min_steps=12, batch_size=4, evaluations=3, learning_rate=3e-3),
)


def drawn_scene(number: int, size: tuple[int, int] = (96, 72)) -> tuple[Image.Image, tuple[Item, ...]]:
    """A scene with one to three items that do not overlap."""
    rng = np.random.default_rng(number)
    image = Image.new("RGB", size, (90, 90, 90))
    pen = ImageDraw.Draw(image)
    items = []
    for place in range(int(rng.integers(1, 4))):
        side = int(rng.integers(18, 30))
        x, y = 32 * place + int(rng.integers(0, 32 - side + 1)), int(rng.integers(0, size[1] - side))
        vertical = VERTICALS[int(rng.integers(2))]
        shape = pen.ellipse if vertical == "discs" else pen.rectangle
        shape((x, y, x + side - 1, y + side - 1), fill=(230, 40, 40) if vertical == "discs" else (40, 200, 60))
        items.append(Item(box_xyxy_px=(x, y, x + side, y + side), vertical=vertical))
    return image, tuple(items)


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def drawn_scenes(count: int = 18) -> Iterator[SourceRow]:
    """Scenes in all three splits."""
    for number in range(count):
        image, items = drawn_scene(number)
        split = ("train", "train", "train", "train", "val", "test")[number % 6]
        yield SourceRow(
            origin=f"scene {number}", id=f"scene-{number:02d}", image=encoded(image), split=split, items=items
        )
