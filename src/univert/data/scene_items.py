"""Items of scenes as images of their own: rows of a table that refer to the scene's bytes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64


def images_of_one_product(
    table: pa.Table, is_scene: Bool[np.ndarray, "N"], items: pa.ChunkedArray | None
) -> tuple[pa.Table, Int64[np.ndarray, "M"]]:
    """The rows that are no scenes, and then a row for each item of a scene.

    Args:
        table: columns of a catalogue, a row an image.
        is_scene: which rows are scenes.
        items: the column of that name; None where there is no scene.

    Returns:
        the table with a column `in_scene`, and for each row the one of the old table that holds its image.
    """
    own, scenes = np.flatnonzero(~is_scene), np.flatnonzero(is_scene)
    images = table.take(own).append_column("in_scene", pa.array(np.zeros(len(own), bool)))
    if items is None or not len(scenes):
        return images, own
    listed = items.take(scenes).to_pylist()
    rows = np.repeat(scenes, [len(each) for each in listed])
    found = [item for each in listed for item in each]
    numbers = [number for each in listed for number in range(1, len(each) + 1)]
    columns = table.take(rows).to_pydict()
    columns |= {name: [item[name] for item in found] for name in ("vertical", "product", "box")}
    columns |= {name: _of_products(images, name, columns["product"]) for name in ("brand", "style")}
    columns["id"] = [f"{name}#{number}" for name, number in zip(columns["id"], numbers, strict=True)]
    columns["digest"] = [f"{one} {tuple(box)}" for one, box in zip(columns["digest"], columns["box"], strict=True)]
    columns["in_scene"] = [True] * len(found)
    together = pa.concat_tables([images, pa.Table.from_pydict(columns, schema=images.schema)])
    return together.combine_chunks(), np.concatenate([own, rows])


def _of_products(images: pa.Table, name: str, products: list[str | None]) -> list[str | None]:
    """What a column says of products, by the first picture of each that says anything."""
    pictures = images.select(["id", "product", name]).sort_by([("id", "descending")])
    pairs = zip(pictures["product"].to_pylist(), pictures[name].to_pylist(), strict=True)
    known = {product: value for product, value in pairs if product is not None and value is not None}
    return [known.get(product) for product in products]
