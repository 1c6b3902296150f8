"""A tiny catalogue drawn by code, for tests that train."""

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

from tests.data.pictures import encoded
from univert.data.rows import SourceRow

VERTICALS = ("discs", "squares")
PRODUCTS = 12
IMAGES = 3


def drawn_rows() -> Iterator[SourceRow]:
    """Products are hues, verticals are shapes; a quarter of the training products has lost its names."""
    for v, vertical in enumerate(VERTICALS):
        for product in range(PRODUCTS):
            split = ("train", "train", "val", "test")[product % 4]
            for image in range(IMAGES):
                rng = np.random.default_rng((v, product, image))
                colour = Image.new("HSV", (1, 1), (product * 255 // PRODUCTS, 220, int(rng.integers(180, 255))))
                canvas = Image.new("RGB", (32, 32), "white")
                low, high = rng.integers(2, 8), rng.integers(22, 30)
                draw = ImageDraw.Draw(canvas)
                shape = draw.ellipse if vertical == "discs" else draw.rectangle
                shape((low, low, high, high), fill=colour.convert("RGB").getpixel((0, 0)))
                name = f"{vertical}-{product}"
                yield SourceRow(
                    origin=f"{name}-{image}",
                    id=f"{name}-{image}",
                    vertical=vertical,
                    image=encoded(canvas),
                    product=None if product % 8 == 1 else name,
                    brand=f"artist-{image}",
                    split=split,
                )
