"""A catalogue's images as an engine takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from univert.core.protocols import Images
from univert.models.runtime.engine import Engine


def prepared_batches(
    engine: Engine, catalogue: Images, batch_size: int = 64, *, positions: Sequence[int] | None = None
) -> Iterator[UInt8[np.ndarray, "B 3 S S"]]:
    """Batches of a catalogue's images, preprocessed as the model wants them, decoded ahead in threads.

    Args:
        engine: whose preprocessing.
        catalogue: where the images are.
        batch_size: images at a time.
        positions: which of them; None takes all.

    Raises:
        BadInputError: an image cannot be read; the message names it.
    """
    from univert.data.loading import ImageLoader

    loader = ImageLoader(catalogue, engine.preprocessing)
    for batch in loader.batches(range(len(catalogue)) if positions is None else positions, batch_size):
        yield np.ascontiguousarray(batch.numpy())
