"""Samplers: which images form the batch of a step. A pure function of (seed, step), so resuming is exact."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
from jaxtyping import Int64

from univert.core.errors import BadInputError

Positions = Int64[np.ndarray, "B"]


class Sampler(ABC):
    """Gives the positions of the images of any step, the same whenever it is asked.

    Attributes:
        batch_size: images a batch.
        steps_per_epoch: whole batches that the products (or images) make; what is left over sits the epoch out.
    """

    batch_size: int
    steps_per_epoch: int

    @abstractmethod
    def batch(self, step: int) -> Positions:
        """Positions of the images of step `step` (counted from 0)."""


def step_rng(seed: int, *path: int) -> np.random.Generator:
    """A generator that depends on the seed and the place it is used for alone.

    Args:
        seed: of the run, 0 or above.
        path: whole numbers, 0 or above, that tell uses apart: a purpose, a step.
    """
    return np.random.default_rng((seed, *path))


def _visiting_order(seed: int, count: int) -> Callable[[int], Positions]:
    """The order of an epoch; the last one asked for is kept, since neighbouring steps share it."""
    return functools.lru_cache(maxsize=1)(lambda epoch: step_rng(seed, 0, epoch).permutation(count))


class PKSampler(Sampler):
    """P products x K images a batch; each epoch visits every product at most once, in a new order.

    A product with fewer than K images gives some of them twice (training sees another augmented view).

    Args:
        products: a product code for each image; -1 (unlabelled) takes no part.
        products_per_batch: P; lowered to the number of products there are.
        images_per_product: K.
        min_images: products with fewer images take no part (2 where a loss needs a positive).
        seed: of the order.

    Raises:
        BadInputError: fewer than two products remain.
    """

    def __init__(
        self,
        products: Int64[np.ndarray, "N"],
        *,
        products_per_batch: int = 32,
        images_per_product: int = 4,
        min_images: int = 1,
        seed: int = 0,
    ) -> None:
        if products_per_batch < 2 or images_per_product < 1:
            raise BadInputError(
                "products_per_batch must be at least 2 and images_per_product at least 1, "
                f"got {products_per_batch} and {images_per_product}"
            )
        order = np.argsort(products, kind="stable")
        order = order[products[order] >= 0]
        _, starts, counts = np.unique(products[order], return_index=True, return_counts=True)
        keep = counts >= min_images
        self._order, self._starts, self._counts = order, starts[keep], counts[keep]
        if len(self._starts) < 2:
            raise BadInputError(
                f"sampling needs at least 2 products with {min_images} or more images, found {len(self._starts)}"
            )
        self._p = min(products_per_batch, len(self._starts))
        self._k = images_per_product
        self._seed = seed
        self._visits = _visiting_order(seed, len(self._starts))
        self.batch_size = self._p * self._k
        self.steps_per_epoch = len(self._starts) // self._p

    def batch(self, step: int) -> Positions:
        """Positions of step `step`, the images of a product side by side."""
        epoch, turn = divmod(step, self.steps_per_epoch)
        visit = self._visits(epoch)
        chosen = visit[turn * self._p : (turn + 1) * self._p]
        rng = step_rng(self._seed, 1, step)
        return np.concatenate([self._images(product, rng) for product in chosen])

    def _images(self, product: int, rng: np.random.Generator) -> Positions:
        count = int(self._counts[product])
        rounds = [rng.permutation(count) for _ in range(-(-self._k // count))]
        picked = np.concatenate(rounds)[: self._k]
        positions: Positions = self._order[self._starts[product] + picked]
        return positions


class UniformSampler(Sampler):
    """Every image at most once an epoch, in a new order, labelled or not; what distillation needs.

    Args:
        positions: of the images that take part.
        batch_size: lowered to the number of images.
        seed: of the order.

    Raises:
        BadInputError: no images, or a batch size below 1.
    """

    def __init__(self, positions: Int64[np.ndarray, "N"], *, batch_size: int = 128, seed: int = 0) -> None:
        count = len(positions)
        if count < 1 or batch_size < 1:
            raise BadInputError(
                f"sampling needs at least 1 image and batch_size >= 1, got {count} and {batch_size}"
            )
        self._positions = positions
        self._visits = _visiting_order(seed, count)
        self.batch_size = min(batch_size, count)
        self.steps_per_epoch = count // self.batch_size

    def batch(self, step: int) -> Positions:
        """Positions of step `step`."""
        epoch, turn = divmod(step, self.steps_per_epoch)
        visit = self._visits(epoch)[turn * self.batch_size : (turn + 1) * self.batch_size]
        positions: Positions = self._positions[visit]
        return positions
