"""Sources: from positions in a catalogue and view numbers to embeddings, with or without cached features."""

from __future__ import annotations

import concurrent.futures
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.data.loading import ImageLoader
from univert.data.samplers import Positions
from univert.models.base_networks.base import Cut
from univert.models.embedder import Embedder
from univert.models.folding import fold_batch_norms
from univert.training.view_arrays import Compute, ViewArrays

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
    def pooled(self, embedder: Embedder, inputs: Tensor) -> Float[Tensor, "B F"]:
        """Pooled features of what `load` gave, with gradients to whatever of the base network learns."""

    def run(self, embedder: Embedder, inputs: Tensor) -> Float[Tensor, "B D"]:
        """Embeddings of what `load` gave, with gradients to whatever of the embedder learns."""
        return embedder.project(self.pooled(embedder, inputs.to(embedder.device, non_blocking=True)))

    def embed(self, embedder: Embedder, positions: Positions, views: Positions) -> Float[Tensor, "B D"]:
        """Embeddings, with gradients to whatever of the embedder learns."""
        return self.run(embedder, self.load(positions, views))

    def infer(self, embedder: Embedder, inputs: Tensor) -> Float[Tensor, "B D"]:
        """Embeddings of what `load` gave, without gradients, as float32 on the CPU; so many at a time as suits."""
        if embedder.training:
            embedder.eval()
        with torch.inference_mode():
            parts = [self.run(embedder, part).float().cpu() for part in inputs.split(self.batch_size)]
        return torch.cat(parts) if parts else torch.empty(0, embedder.size)

    def prefetch(self, positions: Positions, views: Positions) -> None:  # noqa: B027 - optional
        """Begin to load what the next call will ask for."""

    def embed_all(self, embedder: Embedder, positions: Positions) -> Float[np.ndarray, "N D"]:
        """Embeddings of unaugmented images, without gradients, as float32 on the CPU."""
        chunks = [positions[start : start + self.batch_size] for start in range(0, len(positions), self.batch_size)]
        parts = [self.infer(embedder, self.load(chunk, np.zeros_like(chunk))).numpy() for chunk in chunks]
        return np.concatenate([np.empty((0, embedder.size), np.float32), *parts])


class ImageSource(Source):
    """Decodes, augments (`views` different ways) and runs the whole network: for a base network that learns."""

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

    def pooled(self, embedder: Embedder, inputs: Tensor) -> Float[Tensor, "B F"]:
        """Features by the whole base network; see `Source.pooled`."""
        return embedder.features(inputs)


class CachedSource(Source):
    """Reads a fixed base network's features, a row per image and view (see `feature_rows`), and runs the head alone.

    The embeddings are those that `ImageSource` gives, in a hundredth of the time.
    """

    def __init__(self, features: ViewArrays) -> None:
        self.views = features.views
        self.features = features

    def load(self, positions: Positions, views: Positions) -> Float[Tensor, "B F"]:
        """Features; see `Source.load`."""
        return torch.from_numpy(self.features.gather(positions, views))

    def pooled(self, embedder: Embedder, inputs: Tensor) -> Float[Tensor, "B F"]:
        """What was loaded; see `Source.pooled`."""
        return inputs


class FrontSource(Source):
    """Reads what a base network's frozen first layers give, computed once per image and view, and runs the rest.

    For a base network whose last stages learn. Kept at half precision: embeddings are those of `ImageSource` up to a
    thousandth.

    Args:
        maps: a flat row an image and view; see `front_rows`.
        cut: the base network whose front made them, before the stages that learn.
        stages: how many of the last stages learn.
    """

    batch_size = 2 * FEATURE_BATCH

    def __init__(self, maps: ViewArrays, cut: Cut, stages: int) -> None:
        self.views = maps.views
        self._maps, self._own, self._stages = maps, cut, stages
        self._cuts: weakref.WeakKeyDictionary[Embedder, Cut] = weakref.WeakKeyDictionary()

    def load(self, positions: Positions, views: Positions) -> Float16[Tensor, "B C H W"]:
        """Maps at half precision; see `Source.load`."""
        maps: Tensor = torch.from_numpy(self._maps.gather(positions, views))
        return maps.view(-1, *self._own.map_shape)

    def pooled(self, embedder: Embedder, inputs: Tensor) -> Float[Tensor, "B F"]:
        """Features by the rest of the base network; see `Source.pooled`.

        Raises:
            BadInputError: the front of the embedder's base network is another one.
        """
        if embedder not in self._cuts:
            self._cuts[embedder] = self._cut(embedder)
        maps = inputs.float().contiguous(memory_format=torch.channels_last)
        features: Tensor = embedder.pooling(self._cuts[embedder].back(maps))
        return features

    def _cut(self, embedder: Embedder) -> Cut:
        cut = embedder.base_network.cut(self._stages, embedder.config.image_size_px)
        if cut is None or not same_weights(cut.front, self._own.front):
            raise BadInputError(
                "the first layers of the model are not those of the run's base network, whose maps are kept; "
                "set maps_gb = 0"
            )
        return cut


class PooledSource(Source):
    """Another source, but for a training whose objective runs the head: it gets pooled features, not embeddings."""

    def __init__(self, source: Source) -> None:
        self.views, self.batch_size = source.views, source.batch_size
        self._source = source

    def prefetch(self, positions: Positions, views: Positions) -> None:
        """See `Source.prefetch`."""
        self._source.prefetch(positions, views)

    def load(self, positions: Positions, views: Positions) -> Tensor:
        """See `Source.load`."""
        return self._source.load(positions, views)

    def pooled(self, embedder: Embedder, inputs: Tensor) -> Float[Tensor, "B F"]:
        """See `Source.pooled`."""
        return self._source.pooled(embedder, inputs)

    def embed(self, embedder: Embedder, positions: Positions, views: Positions) -> Float[Tensor, "B F"]:
        """Pooled features, with gradients to whatever of the base network learns."""
        return self.pooled(embedder, self.load(positions, views).to(embedder.device, non_blocking=True))


def front_rows(base: Embedder, loader: ImageLoader, cut: Cut) -> Compute:
    """What computes the maps that a base network's front gives for images and views, flat, for `ViewArrays` to keep.

    Raises:
        BadInputError: when called, a map is too large for half precision.
    """

    def of_images(images: Tensor) -> Tensor:
        maps: Tensor = cut.front(base.normalise(images)).flatten(1).half()
        if not maps.isfinite().all():
            raise BadInputError(f"{base.config.base_network} gives maps beyond half precision; set maps_gb = 0")
        return maps

    return _rows(base, loader, of_images)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules hold equal parameters and buffers, in the same order."""
    mine, theirs = one.state_dict().values(), other.state_dict().values()
    return len(mine) == len(theirs) and all(
        torch.equal(first, second.to(first.device)) for first, second in zip(mine, theirs, strict=True)
    )


def feature_rows(base: Embedder, loader: ImageLoader) -> Compute:
    """What computes the pooled features of images and views, for `ViewArrays` to keep."""

    def compute(positions: Positions, views: Positions) -> Iterator[np.ndarray]:
        folded = fold_batch_norms(base)
        yield from _rows(folded, loader, lambda images: folded.inference_features(images).float())(positions, views)

    return compute


def _rows(embedder: Embedder, loader: ImageLoader, of_images: Callable[[Tensor], Tensor]) -> Compute:
    def compute(positions: Positions, views: Positions) -> Iterator[np.ndarray]:
        embedder.eval()
        with torch.inference_mode():
            for images in loader.batches(positions, FEATURE_BATCH, views):
                yield of_images(images.to(embedder.device)).cpu().numpy()

    return compute


def _key(positions: Positions, views: Positions) -> bytes:
    return positions.tobytes() + b"/" + views.tobytes()
