"""The embedder: base network, pooling, head and L2 norm, from images to unit vectors."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.core.protocols import Images
from univert.core.tensors import unit_rows
from univert.core.terminal import progress_bar
from univert.core.threads import decoding_threads, map_ahead
from univert.data.loading import ImageLoader, channels_first
from univert.models.base_networks import make_base_network
from univert.models.config import BaseNetworkLearns, EmbedderConfig
from univert.models.head import Head, make_pooling
from univert.models.inputs import ImageLike, as_rgb, single_images
from univert.models.io import SavedModel, read_model

__all__ = ["Embedder", "EmbedderConfig"]

# More pixels at a time are slower on a CPU: the maps between the layers leave the caches, and outgrow the
# 32 MB up to which the GNU C library keeps freed memory for the next layer.
_CPU_SLICE_PX = 16 * 128**2
FOLD_FROM_IMAGES = 512
"""So many images of a catalogue are worth a copy of the network with folded batch norms."""


class Embedder(SavedModel):
    """Maps images to unit vectors; squared Euclidean distance between them says how alike the products are.

    Base network, pooling, first and second fully connected set, L2 norm: FIG. 2 of the unified-embedding paper.
    Everything an image needs (its preprocessing, the pixels' mean and deviation) is inside and is saved with the
    weights.

    Args:
        config: what to build; None takes the defaults.

    Attributes:
        config: as given.
        preprocessing: from an image of any size to the network's square.
        feature_size: width of the pooled features.
        size: width of the embedding.

    Raises:
        BadInputError: the base network does not exist, or its weights cannot be had.

    Example:
        >>> from PIL import Image
        >>> model = Embedder(EmbedderConfig(size=64)).eval()
        >>> model.embed([Image.new("RGB", (90, 60), "red")]).shape
        (1, 64)
    """

    pixel_scale: Tensor
    pixel_shift: Tensor

    def __init__(self, config: EmbedderConfig | None = None) -> None:
        super().__init__()
        self.config = config or EmbedderConfig()
        self.preprocessing = self.config.preprocessing()
        self.base_network = make_base_network(
            self.config.base_network, pretrained=self.config.pretrained, image_size_px=self.config.image_size_px
        )
        self.pooling = make_pooling(self.config.pooling)
        self.feature_size = self.base_network.feature_size
        self.size = self.config.size if self.config.size is not None else self.feature_size
        self.head: nn.Module = nn.Identity()
        if self.config.size is not None:
            self.head = Head(
                self.feature_size, self.config.hidden_sizes, self.config.size, batch_norm=self.config.batch_norm
            )
        mean, std = torch.tensor(self.base_network.mean_rgb), torch.tensor(self.base_network.std_rgb)
        # Normalisation as one multiplication and one addition; buffers, so that they travel with the weights.
        self.register_buffer("pixel_scale", (1 / std).view(1, 3, 1, 1))
        self.register_buffer("pixel_shift", (-mean / std).view(1, 3, 1, 1))

    def features(self, images: UInt8[Tensor, "B 3 S S"] | Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B F"]:
        """Pooled features of preprocessed images: uint8, or floats from 0 to 1; channels last costs no copy."""
        features: Tensor = self.pooling(self.base_network(self.normalise(images)))
        return features

    def normalise(self, images: UInt8[Tensor, "B 3 S S"] | Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 3 S S"]:
        """Preprocessed images as the base network takes them; see `features`."""
        images = images.contiguous(memory_format=torch.channels_last)
        scale = self.pixel_scale / 255 if images.dtype == torch.uint8 else self.pixel_scale
        return torch.mul(images, scale).add_(self.pixel_shift)

    @torch.inference_mode()
    def inference_features(self, images: UInt8[Tensor, "B 3 S S"]) -> Float[Tensor, "B F"]:
        """The same as `features` without gradients, for many images: in slices that suit the device."""
        if images.is_cuda or not len(images):
            return self.features(images)
        slice_size = max(2, _CPU_SLICE_PX // self.config.image_size_px**2)
        # For one image alone, CPU libraries use other kernels, whose last bits differ; two agree.
        parts = [part if len(part) > 1 else part.expand(2, -1, -1, -1) for part in images.split(slice_size)]
        return torch.cat([self.features(part) for part in parts])[: len(images)]

    def project(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B D"]:
        """From pooled features to unit vectors: the head and the L2 norm."""
        return unit_rows(self.head(features))

    def forward(self, images: UInt8[Tensor, "B 3 S S"] | Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """Unit vectors of preprocessed images: `project(features(images))`."""
        return self.project(self.features(images))

    def trainable(self, base_network_learns: BaseNetworkLearns = "all", last_blocks: int = 2) -> list[dict[str, Any]]:
        """Choose what learns, and get it as parameter groups for an optimiser.

        Frozen parts get no gradient and stay in evaluation mode, also after `train()`: their batch
        normalisation keeps the statistics it has.

        Args:
            base_network_learns: `no` trains the head alone, `last_blocks` also the last stages of the base network,
                `all` everything.
            last_blocks: how many stages that is, counted from the output.

        Returns:
            `{"name": "head", "params": [...]}` and `{"name": "base network", "params": [...]}`, unless empty.

        Raises:
            BadInputError: no such choice, more stages than there are, or nothing left to train.
        """
        if base_network_learns not in ("no", "last_blocks", "all"):
            raise BadInputError(
                f'base_network_learns must be "no", "last_blocks" or "all", got {base_network_learns!r}'
            )
        groups = {"head": list(self.head.parameters()), "base network": list[nn.Parameter]()}
        if base_network_learns != "no":
            count = last_blocks if base_network_learns == "last_blocks" else len(self.base_network.stages)
            groups["base network"] = [*self.base_network.last_stages(count), *self.pooling.parameters()]
        learning = {id(parameter) for parameters in groups.values() for parameter in parameters}
        if not learning:
            raise BadInputError('nothing would learn: size is None and base_network_learns is "no"; change one of them')
        for parameter in self.parameters():
            parameter.requires_grad_(id(parameter) in learning)
            if not parameter.requires_grad:
                parameter.grad = None
        self.train(self.training)
        return [{"name": name, "params": parameters} for name, parameters in groups.items() if parameters]

    def train(self, mode: bool = True) -> Self:
        """Set training mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        if mode:
            _evaluate_frozen(self)
            self.training = True  # the embedder itself is in the mode asked for, even if all of it is frozen
        return self

    def embed(
        self, items: ImageLike | Iterable[ImageLike], batch_size: int = 64, progress: bool = False
    ) -> Float[np.ndarray, "N D"]:
        """Unit vectors of images of any size, preprocessed as in training, the same whatever the batch size.

        Args:
            items: one image or any iterable of them: paths, encoded bytes, PIL images, (H, W, 3) arrays or
                (3, H, W) tensors of uint8 or floats from 0 to 1.
            batch_size: images that go through the network together.
            progress: show a bar on a terminal.

        Returns:
            float32, one row an image, in the order given; (0, D) for none.

        Raises:
            BadInputError: an item is not an image (the message names it), or `batch_size` is not positive.
        """
        _check_batch_size(batch_size)
        images = single_images(items)
        numbered = enumerate(images)
        jobs = iter(lambda: list(itertools.islice(numbered, batch_size)), [])
        batches = map(channels_first, map_ahead(self._squares, jobs, workers=decoding_threads(None)))
        return self._embed_batches(batches, len(images) if isinstance(images, Sized) else None, progress)

    def embed_catalogue(
        self, catalogue: Images, batch_size: int = 64, progress: bool = False
    ) -> Float[np.ndarray, "N D"]:
        """Unit vectors of a catalogue's images, in its order; see `embed`.

        Raises:
            BadInputError: an image cannot be read (the message names it), or `batch_size` is not positive.
        """
        _check_batch_size(batch_size)
        from univert.models.folding import fold_batch_norms

        loader, count = ImageLoader(catalogue, self.preprocessing), len(catalogue)
        network = fold_batch_norms(self) if count >= FOLD_FROM_IMAGES and self.device.type == "cpu" else self
        return network._embed_batches(loader.batches(range(count), batch_size), count, progress)

    def _squares(self, chunk: list[tuple[int, ImageLike]]) -> UInt8[np.ndarray, "B S S 3"]:
        size = self.preprocessing.image_size_px
        batch = np.empty((len(chunk), size, size, 3), np.uint8)
        for i, (number, item) in enumerate(chunk):
            image = as_rgb(number, item, background_rgb=self.preprocessing.background_rgb, draft_px=size)
            batch[i] = self.preprocessing(image)
        return batch

    def _embed_batches(
        self, batches: Iterator[UInt8[Tensor, "B 3 S S"]], total: int | None, progress: bool
    ) -> Float[np.ndarray, "N D"]:
        training = self.training
        parts: list[np.ndarray] = []
        self.eval()
        try:
            bar = progress_bar("embedding", total) if progress else contextlib.nullcontext(lambda done: None)
            with torch.inference_mode(), bar as advance:
                for images in batches:
                    features = self.inference_features(images.to(self.device, non_blocking=True))
                    parts.append(self.project(features).float().cpu().numpy())
                    advance(len(images))
        finally:
            self.train(training)
        return np.concatenate(parts) if parts else np.empty((0, self.size), np.float32)

    @classmethod
    def from_pretrained(cls, folder_or_hub_id: Path | str, revision: str | None = None) -> Embedder:
        """Load a saved model, in evaluation mode, on the CPU.

        Args:
            folder_or_hub_id: a folder that `save_pretrained` wrote, or `OWNER/NAME` on the Hugging Face hub; a `Path`
                is a folder, whatever its name.
            revision: branch, tag or commit on the hub.

        Raises:
            BadInputError: there is no such model, or its files are incomplete, damaged or do not fit together.
        """
        config, weights = read_model(folder_or_hub_id, revision=revision)
        with torch.random.fork_rng(devices=[]):  # loading draws nothing from the caller's random numbers
            # The weights come from the file, so none are fetched; the configuration stays as it was saved.
            model = cls(replace(config, pretrained=False))
        return model.filled_from(config, weights, folder_or_hub_id)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise BadInputError(f"batch_size must be at least 1, got {batch_size}; 64 suits most machines")


def _evaluate_frozen(module: nn.Module) -> None:
    """Put every part without a learning parameter into evaluation mode: its batch normalisation must not move."""
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        module.eval()
        return
    for child in module.children():
        _evaluate_frozen(child)
