"""Vectors drawn as embeddings lie, for the benchmarks of the index.

Verticals, styles and products in them, directions of uneven strength; images of a product are as far apart (0.7) as
those of the emoji catalogue's unified model.
"""

from __future__ import annotations

import numpy as np

SIZE, CHUNK = 256, 50_000


def clustered(rows: int, queries: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors (N, D), queries (Q, D) and the vertical of each vector (N,)."""
    rng = np.random.default_rng(seed)
    strength = (1.0 + np.arange(SIZE, dtype=np.float32)) ** -0.25
    strength /= np.sqrt(np.mean(strength**2))

    def draw(count: int) -> np.ndarray:
        return rng.standard_normal((count, SIZE), dtype=np.float32) * strength

    verticals, styles, products = draw(20), max(rows // 400, 10), max(rows // 8, 10)
    style_vertical = rng.integers(0, 20, styles)
    product_style = rng.integers(0, styles, products)
    style = verticals[style_vertical] + 0.8 * draw(styles)
    product = style[product_style] + 0.6 * draw(products)

    def images(of: np.ndarray) -> np.ndarray:
        made = product[of] + draw(len(of))
        unit: np.ndarray = made / np.linalg.norm(made, axis=1, keepdims=True)
        return unit.astype(np.float32)

    image_product = rng.integers(0, products, rows)
    vectors = np.empty((rows, SIZE), np.float32)
    for start in range(0, rows, CHUNK):
        vectors[start : start + CHUNK] = images(image_product[start : start + CHUNK])
    asked = images(rng.integers(0, products, queries))
    return vectors, asked, style_vertical[product_style[image_product]]
