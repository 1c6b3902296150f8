"""Images as a network sees them: prepared by the model's own preprocessing, in batches of 8-bit pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from univert.core.errors import BadInputError
from univert.core.protocols import Images
from univert.data.transforms import Preprocessing


def prepare_image(preprocessing: Preprocessing, image: Image.Image) -> UInt8[np.ndarray, "3 S S"]:
    """An image as the network sees it, channels first; raises BadInputError if it is not RGB or has no pixels."""
    if image.mode != "RGB" or not image.width or not image.height:
        raise BadInputError(
            f"image must be RGB with at least one pixel, got {image.mode} of {image.width} x {image.height}; "
            "decode it with univert.data.decode.decode_rgb"
        )
    return np.ascontiguousarray(preprocessing(image).transpose(2, 0, 1))


def prepared_batches(
    preprocessing: Preprocessing, catalogue: Images, batch_size: int = 64, *, positions: Sequence[int] | None = None
) -> Iterator[UInt8[np.ndarray, "B 3 S S"]]:
    """Batches of all of a catalogue's images, or of those at some positions, prepared ahead in threads.

    Raises:
        BadInputError: an image cannot be read; the message names it.
    """
    from univert.data.loading import ImageLoader  # loads PyTorch

    loader = ImageLoader(catalogue, preprocessing)
    for batch in loader.batches(range(len(catalogue)) if positions is None else positions, batch_size):
        yield np.ascontiguousarray(batch.numpy())


def check_pixels(batch: np.ndarray, image_size_px: int) -> UInt8[np.ndarray, "B 3 S S"]:
    """A batch of prepared images as it is; raises BadInputError for another shape or kind of numbers."""
    wanted = (3, image_size_px, image_size_px)
    if batch.ndim != 4 or batch.shape[1:] != wanted or batch.dtype != np.uint8:
        sizes = ", ".join(map(str, wanted))
        raise BadInputError(f"batch must be uint8 of shape (B, {sizes}), got {batch.dtype} of {batch.shape}")
    return batch
