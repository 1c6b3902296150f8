"""What a run's stages see of its images: the untrained base network, its features, and arrays kept on disk."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from univert.core.config import to_plain
from univert.core.files import fingerprint
from univert.data.loading import ImageLoader
from univert.data.samplers import Positions, balanced_sample, step_rng
from univert.models.base_networks.base import Cut
from univert.models.embedder import Embedder
from univert.training.recipe import Recipe
from univert.training.run_images import RunImages
from univert.training.sources import CachedSource, FrontSource, ImageSource, Source, feature_rows, front_rows
from univert.training.targets.alignment import principal_directions
from univert.training.view_arrays import Compute, ViewArrays

PREDICTOR_IMAGES = 20_000
"""The predictor of verticals is fitted on at most so many training images."""
START_IMAGES = 4_000
"""The directions along which heads start are taken from at most so many training images."""
PREDICTOR_SCALE = 10.0
"""Unit features are multiplied by it: logistic regression with unit penalty would otherwise be far too timid."""


class Features:
    """The base network of a run, and what it makes of the images.

    `cache` is the folder that keeps arrays. `base` stands for the untrained base network: it has no head, its embedding
    is the pooled features; None takes the recipe's.
    """

    def __init__(
        self, images: RunImages, recipe: Recipe, cache: Path, device: torch.device, base: Embedder | None = None
    ) -> None:
        self._images, self._recipe, self._cache, self._device = images, recipe, cache, device
        self._given = base

    @cached_property
    def base(self) -> Embedder:
        """The untrained base network: no head, its embedding is the pooled features."""
        if self._given is not None:
            return self._given.to(self._device)
        with torch.random.fork_rng():
            torch.manual_seed(self._recipe.seed)
            return Embedder(self._recipe.model.without_head()).to(self._device)

    @cached_property
    def base_fingerprint(self) -> str:
        """Of the untrained base network."""
        return self.base.fingerprint

    def base_vectors(self, positions: Positions) -> Float[np.ndarray, "B F"]:
        """Embeddings by the untrained base network: its pooled features, of unit length."""
        return self._clean_source.embed_all(self.base, positions)

    @cached_property
    def directions(self) -> tuple[Float[Tensor, "F F"], Float[Tensor, "N F"]]:
        """Principal directions of the pooled features of training images, a column each; and some of those features."""
        train = np.flatnonzero(self._images.is_train)
        chosen = train[:: math.ceil(len(train) / START_IMAGES)]
        features = torch.from_numpy(self._clean_source.features.clean(chosen))
        vectors = torch.nn.functional.normalize(features).double().numpy()
        return torch.from_numpy(principal_directions(vectors)).float(), features

    @cached_property
    def _clean_source(self) -> CachedSource:
        return self.frozen_source(0)

    @cached_property
    def loader(self) -> ImageLoader:
        """Decodes and augments."""
        data, recipe = self._recipe.data, self._recipe
        return ImageLoader(self._images.catalogue, self.base.preprocessing, data.augmentation, seed=recipe.seed)

    @cached_property
    def source(self) -> Source:
        """Embeddings for training: from cached features where the base network does not learn, else from images.

        The first access computes what the run's cache does not have yet.
        """
        if self._kept_cut is not None:
            return self._front_source(self._kept_cut)
        if self._recipe.base_network_learns != "no":
            return ImageSource(self.loader, views=self._recipe.data.views)
        return self.frozen_source()

    def frozen_source(self, views: int | None = None) -> CachedSource:
        """Cached features of the untrained base network, whether it is to learn or not; by default of all views."""
        name, compute = f"features-{self.base_fingerprint}", feature_rows(self.base, self.loader)
        return CachedSource(self.view_arrays(name, "features", self.base.feature_size, compute, views=views))

    @property
    def keeps_maps(self) -> bool:
        """Whether a partly learning base network is fed with what its frozen layers gave, at half precision."""
        return self._kept_cut is not None

    def view_arrays(
        self,
        name: str,
        description: str,
        width: int,
        compute: Compute,
        *,
        views: int | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> ViewArrays:
        """An array with a row for every image and training view, computed now unless the run has it; see `ViewArrays`.

        The name must change with anything that the rows depend on, except the images themselves.
        """
        arrays = ViewArrays(
            self._cache / f"{name}-{self._pixels_key}",
            description,
            count=len(self._images.catalogue),
            augmented=np.flatnonzero(self._images.is_train),
            views=self._recipe.data.views if views is None else views,
            width=width,
            compute=compute,
            dtype=dtype,
        )
        arrays.compute_missing()
        return arrays

    def vertical_probabilities(self, positions: Positions) -> Float[np.ndarray, "B K"]:
        """The probability of each vertical for some images, as the untrained base network sees them."""
        return self.router(self.base_vectors(positions))

    @cached_property
    def router(self) -> VerticalPredictor:
        """Predicts verticals; fitted on the training images whose vertical is known."""
        images = self._images
        known = np.flatnonzero(images.is_train & (images.verticals >= 0))
        chosen = balanced_sample(known, images.verticals[known], PREDICTOR_IMAGES, step_rng(self._recipe.seed, 5))
        return VerticalPredictor(self.base_vectors(chosen), images.verticals[chosen], len(images.vertical_names))

    @cached_property
    def _pixels_key(self) -> str:
        """Fingerprint of all that the pixels of an image and view depend on."""
        recipe = self._recipe
        return fingerprint(
            self._images.catalogue.fingerprint,
            to_plain(recipe.data.augmentation),
            to_plain(recipe.model.preprocessing()),
            recipe.seed,
        )

    @cached_property
    def _kept_cut(self) -> Cut | None:
        """Where a partly learning base network is cut to keep what comes before; None where that is not kept."""
        recipe = self._recipe
        if recipe.base_network_learns != "last_blocks" or not recipe.maps_gb:
            return None
        cut = self.base.base_network.cut(recipe.last_blocks, self.base.config.image_size_px)
        if cut is None:
            return None
        rows = len(self._images.catalogue) + recipe.data.views * int(self._images.is_train.sum())
        return cut if 2 * math.prod(cut.map_shape) * rows <= recipe.maps_gb * 1e9 else None

    def _front_source(self, cut: Cut) -> FrontSource:
        blocks = self._recipe.last_blocks
        maps = self.view_arrays(
            f"maps-{self.base_fingerprint}-{blocks}",
            "maps of the frozen layers",
            math.prod(cut.map_shape),
            front_rows(self.base, self.loader, cut),
            dtype=np.float16,
        )
        return FrontSource(maps, cut, blocks)


class VerticalPredictor:
    """Multinomial logistic regression from pooled features of unit length to `count` verticals, each with images."""

    def __init__(self, features: Float[np.ndarray, "N F"], verticals: Int64[np.ndarray, "N"], count: int) -> None:
        from sklearn.linear_model import LogisticRegression

        self._count, self._model = count, LogisticRegression(max_iter=300)
        if count > 1:
            self._model.fit(PREDICTOR_SCALE * features, verticals)

    def __call__(self, features: Float[np.ndarray, "N F"]) -> Float[np.ndarray, "N K"]:
        """The probability of each vertical for images with these unit features."""
        if self._count == 1 or not len(features):
            return np.ones((len(features), self._count), np.float32)
        probabilities: np.ndarray = self._model.predict_proba(PREDICTOR_SCALE * features)
        return probabilities.astype(np.float32)
