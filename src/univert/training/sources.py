"""Sources: from positions in a catalogue and view numbers to embeddings, with or without cached features."""

from __future__ import annotations

import concurrent.futures
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from univert.data.loading import ImageLoader
from univert.models.embedder import Embedder
from univert.training.views import Compute, ViewArrays

Positions = Int64[np.ndarray, "B"]
FEATURE_BATCH = 32


class Source(ABC):
    """Gives embeddings of the images at `positions` of one catalogue.

    Attributes:
        views: augmented views an image has (1..views); view 0 is the image as it is.
        batch_size: images that are best run together.
    """

    views: int
    batch_size: int = 1024

    @abstractmethod
    def load(self, positions: Positions, views: Positions) -> Tensor:
        """What a model of the run takes as input for some images, a row each."""

    @abstractmethod
    def run(self, embedder: Embedder, inputs: Tensor) -> Float[Tensor, "B D"]:
        """Embeddings of what `load` gave, with gradients to whatever of the embedder learns."""

    def embed(self, embedder: Embedder, positions: Positions, views: Positions) -> Float[Tensor, "B D"]:
        """Embeddings, with gradients to whatever of the embedder learns."""
        return self.run(embedder, self.load(positions, views))

    def infer(self, embedder: Embedder, inputs: Tensor) -> Float[Tensor, "B D"]:
        """Embeddings of what `load` gave, without gradients, as float32 on the CPU; so many at a time as suits."""
        embedder.eval()
        with torch.inference_mode():
            parts = [self.run(embedder, part).float().cpu() for part in inputs.split(self.batch_size)]
        return torch.cat(parts) if parts else torch.empty(0, embedder.size)

    def prefetch(self, positions: Positions, views: Positions) -> None:  # noqa: B027 - optional
        """Begin to load what the next call will ask for."""

    def embed_all(self, embedder: Embedder, positions: Positions) -> Float[np.ndarray, "N D"]:
        """Embeddings of unaugmented images, without gradients, as float32 on the CPU."""
        parts = [np.empty((0, embedder.size), np.float32)]
        for start in range(0, len(positions), self.batch_size):
            chunk = positions[start : start + self.batch_size]
            inputs = self.load(chunk, np.zeros(len(chunk), np.int64))
            parts.append(self.infer(embedder, inputs).numpy())
        return np.concatenate(parts)


class ImageSource(Source):
    """Decodes, augments and runs the whole network: for a trunk that learns.

    Args:
        loader: of the catalogue.
        views: how many different augmented views there are.
    """

    batch_size = FEATURE_BATCH

    def __init__(self, loader: ImageLoader, *, views: int) -> None:
        self.views = views
        self._loader = loader
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._next: tuple[bytes, concurrent.futures.Future[Tensor]] | None = None

    def prefetch(self, positions: Positions, views: Positions) -> None:
        """Begin to decode a batch in the background."""
        self._next = (_key(positions, views), self._thread.submit(self._loader.load, positions, views))

    def load(self, positions: Positions, views: Positions) -> Tensor:
        """Images as the network takes them; see `Source.load`."""
        if self._next and self._next[0] == _key(positions, views):
            images, self._next = self._next[1].result(), None
            return images
        return self._loader.load(positions, views)

    def run(self, embedder: Embedder, inputs: Tensor) -> Float[Tensor, "B D"]:
        """Embeddings by the whole network; see `Source.run`."""
        vectors: Tensor = embedder(inputs.to(embedder.device, non_blocking=True))
        return vectors


class CachedSource(Source):
    """Reads a frozen trunk's features, computed once per image and view, and runs the head alone.

    The embeddings are those that `ImageSource` gives, in a hundredth of the time.

    Args:
        features: a row an image and view; see `feature_rows`.
    """

    def __init__(self, features: ViewArrays) -> None:
        self.views = features.views
        self.features = features

    def load(self, positions: Positions, views: Positions) -> Float[Tensor, "B F"]:
        """Features; see `Source.load`."""
        return torch.from_numpy(self.features.gather(positions, views))

    def run(self, embedder: Embedder, inputs: Tensor) -> Float[Tensor, "B D"]:
        """Embeddings by the head; see `Source.run`."""
        return embedder.project(inputs.to(embedder.device, non_blocking=True))


def feature_rows(embedder: Embedder, loader: ImageLoader) -> Compute:
    """What computes the pooled features of images and views, for `ViewArrays` to keep."""

    def compute(positions: Positions, views: Positions) -> Iterator[Float[np.ndarray, "B F"]]:
        embedder.eval()
        with torch.inference_mode():
            for images in loader.batches(positions, FEATURE_BATCH, views):
                yield embedder.inference_features(images.to(embedder.device)).float().cpu().numpy()

    return compute


def _key(positions: Positions, views: Positions) -> bytes:
    return positions.tobytes() + b"/" + views.tobytes()
