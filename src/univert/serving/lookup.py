"""One image against an index: the images nearest to it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from univert.core.errors import BadInputError
from univert.core.protocols import ImageEmbedder
from univert.search.store import Hit, VectorIndex, Where

QueryImage = str | Path | bytes | Image.Image
"""A file, its content, or a PIL image."""


def search_image(
    model: ImageEmbedder,
    index: VectorIndex,
    image: QueryImage,
    k: int = 10,
    *,
    vertical: str | None = None,
    where: Where | None = None,
) -> list[Hit]:
    """The `k` indexed images nearest to an image.

    Args:
        model: the model that made the index.
        index: where to search.
        image: the photo that is asked about.
        k: how many; more than there are gives all.
        vertical: search within this vertical alone.
        where: further filters by column, see `univert.search.filters.sql_condition`.

    Returns:
        hits, nearest first.

    Raises:
        BadInputError: another model than the index's, an image that cannot be read, a vertical that is not in the
            index, or k below 1.
    """
    if vertical is not None and where and "vertical" in where:
        raise BadInputError("give the vertical once: either vertical= or where={'vertical': ...}")
    model_fingerprint = model.fingerprint
    index.check_model(model_fingerprint)
    conditions = {**(where or {}), **({} if vertical is None else {"vertical": vertical})}
    vector = model.embed([image])[0]
    return index.search(vector, k, where=conditions, model_fingerprint=model_fingerprint)
