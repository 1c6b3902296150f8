"""Images of a catalogue as tensors, decoded in threads ahead of whoever consumes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from univert.core.errors import BadInputError
from univert.core.protocols import Images
from univert.core.threads import decoding_threads, map_ahead
from univert.data.decode import BoxXyxyPx, decode_rgb
from univert.data.transforms import Augmentation, Preprocessing, view_rng

Numbers = Sequence[int] | np.ndarray


class ImageLoader:
    """Reads, decodes and preprocesses images of a catalogue, clean or augmented, in threads.

    What comes out for an image depends on the image, the preprocessing and (seed, id, view) alone, never on
    the order, the batch or the number of threads.

    Args:
        catalogue: where the images are.
        preprocessing: how they become squares; its background also goes behind transparent pixels.
        augmentation: needed for views from 1 on.
        seed: of the augmentation.
        workers: decoding threads; None takes one a core, at most 8.

    Raises:
        BadInputError: `workers` is not positive.
    """

    def __init__(
        self,
        catalogue: Images,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        workers: int | None = None,
    ) -> None:
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.seed = seed
        self.workers = decoding_threads(workers)
        self._catalogue = catalogue
        self._ids = catalogue.column("id")

    def load(self, positions: Numbers, views: Numbers | None = None) -> UInt8[Tensor, "B 3 S S"]:
        """Some images as one batch, stored channels last.

        Args:
            positions: rows of the catalogue.
            views: a number for each image: 0 is the clean image, v >= 1 its augmented view v; None means all clean.

        Raises:
            BadInputError: an image cannot be decoded (the message names it), a position or view is out of
                range, or a view asks for an augmentation that was not given.
        """
        jobs = self._jobs(positions, views, max(1, -(-len(positions) // self.workers)))
        size = self.preprocessing.image_size_px
        nothing = np.empty((0, size, size, 3), np.uint8)
        return channels_first(np.concatenate([nothing, *map_ahead(self._decode, jobs, workers=self.workers)]))

    def batches(
        self, positions: Numbers, batch_size: int, views: Numbers | None = None
    ) -> Iterator[UInt8[Tensor, "B 3 S S"]]:
        """Batch after batch in the given order, decoded ahead in threads while the caller computes.

        Args:
            positions: rows of the catalogue.
            batch_size: images a batch; the last may be smaller.
            views: as in `load`.

        Raises:
            BadInputError: as in `load`; or `batch_size` is not positive.
        """
        if batch_size < 1:
            raise BadInputError(f"batch_size must be at least 1, got {batch_size}; 64 suits most machines")
        jobs = self._jobs(positions, views, batch_size)
        return map(channels_first, map_ahead(self._decode, jobs, workers=self.workers))

    def _jobs(self, positions: Numbers, views: Numbers | None, chunk: int) -> list[tuple[list[int], list[int]]]:
        rows = [int(position) for position in positions]
        numbers = [0] * len(rows) if views is None else [int(view) for view in views]
        if len(numbers) != len(rows):
            raise BadInputError(f"views must have one number an image, got {len(numbers)} for {len(rows)} images")
        if numbers and min(numbers) < 0:
            raise BadInputError(f"views must be 0 (clean) or more, got {min(numbers)}")
        if any(numbers) and self.augmentation is None:
            raise BadInputError("views above 0 need an augmentation; pass augmentation=Augmentation() to ImageLoader")
        return [(rows[i : i + chunk], numbers[i : i + chunk]) for i in range(0, len(rows), chunk)]

    def _decode(self, job: tuple[list[int], list[int]]) -> UInt8[np.ndarray, "B S S 3"]:
        rows, views = job
        size = self.preprocessing.image_size_px
        batch = np.empty((len(rows), size, size, 3), np.uint8)
        contents = self._catalogue.image_bytes(rows)
        boxes = self._catalogue.boxes(rows)
        for i, (row, view, content, box) in enumerate(zip(rows, views, contents, boxes, strict=True)):
            batch[i] = self._square(str(self._ids[row]), content, box, view)
        return batch

    def _square(self, image_id: str, content: bytes, box: BoxXyxyPx | None, view: int) -> UInt8[np.ndarray, "S S 3"]:
        size, rng = self.preprocessing.image_size_px, view_rng(self.seed, image_id, view)
        augmentation = self.augmentation if view else None
        if augmentation is not None:  # the smallest crop still has enough pixels
            size = math.ceil(size / math.sqrt(augmentation.min_scale))
            box = augmentation.moved_box(box, rng) if box else None
        try:
            image = decode_rgb(
                content, box_xyxy_px=box, background_rgb=self.preprocessing.background_rgb, draft_px=size
            )
        except BadInputError as error:
            raise BadInputError(f"image {image_id}: {error}") from error
        if augmentation is None:
            return self.preprocessing(image)
        return augmentation.apply(image, self.preprocessing, rng)


def channels_first(batch: UInt8[np.ndarray, "B S S 3"]) -> UInt8[Tensor, "B 3 S S"]:
    """View squares as the (batch, channel, height, width) tensor of networks; channels stay last."""
    return torch.from_numpy(batch).permute(0, 3, 1, 2)
