"""Samplers: which images form the batch of a step. A pure function of (seed, step), so resuming is exact."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64, Int64

from univert.core.errors import BadInputError
from univert.data.strong_negatives import StrongNegatives

Positions = Int64[np.ndarray, "B"]
Turns = Callable[[], Float64[np.ndarray, "P"]]


class Sampler(ABC):
    """Gives the positions of the images of any step, the same whenever it is asked.

    Or hand it to PyTorch: in `DataLoader(dataset, batch_sampler=sampler)` each pass over the loader is one epoch.

    Attributes:
        batch_size: images a batch.
        steps_per_epoch: whole batches that the products (or images) make; what is left over sits the epoch out.
        epoch: of the next pass, counted from 0; set it to go on where a training stopped.
    """

    batch_size: int
    steps_per_epoch: int
    epoch: int = 0

    def __len__(self) -> int:
        """Batches of a pass."""
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of one epoch; the next pass gives the next one's."""
        first = self.epoch * self.steps_per_epoch
        self.epoch += 1
        for step in range(first, first + self.steps_per_epoch):
            yield self.batch(step).tolist()

    @abstractmethod
    def batch(self, step: int) -> Positions:
        """Positions of the images of step `step` (counted from 0)."""


def step_rng(seed: int, *path: int) -> np.random.Generator:
    """A generator that depends on the seed and `path` alone: whole numbers from 0 that tell uses apart."""
    return np.random.default_rng((seed, *path))


def _visiting_order(seed: int, count: int) -> Callable[[int], Positions]:
    """The order of an epoch; the last one asked for is kept, since neighbouring steps share it."""
    return functools.lru_cache(maxsize=1)(lambda epoch: step_rng(seed, 0, epoch).permutation(count))


class PKSampler(Sampler):
    """P products x K images a batch; each epoch visits every product at most once, in a new order.

    A product with fewer than K images gives some of them twice (training sees another augmented view).

    Args:
        products: a product code for each image, in an array, a tensor on the CPU or a list; -1 (unlabelled) takes no
            part.
        products_per_batch: P; lowered to the number of products there are.
        images_per_product: K.
        min_images: products with fewer images take no part (2 where a loss needs a positive).
        turns: gives when each product's turn comes, in the order of their codes: those make the next batch that are
            first. It is asked once for each batch; None visits all alike.
        seed: of the order.

    Raises:
        BadInputError: products that are no whole numbers, or fewer than two remain.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> sampler = PKSampler([0, 0, 1, 1, 2, 2], products_per_batch=3, images_per_product=2)
        >>> [sorted(batch.tolist()) for batch in DataLoader(range(6), batch_sampler=sampler)]
        [[0, 1, 2, 3, 4, 5]]
    """

    def __init__(
        self,
        products: npt.ArrayLike,
        *,
        products_per_batch: int = 32,
        images_per_product: int = 4,
        min_images: int = 1,
        turns: Turns | None = None,
        seed: int = 0,
    ) -> None:
        if products_per_batch < 2 or images_per_product < 1:
            raise BadInputError(
                "products_per_batch must be at least 2 and images_per_product at least 1, "
                f"got {products_per_batch} and {images_per_product}"
            )
        products = np.asarray(products)
        if products.ndim != 1 or products.dtype.kind not in "iu":
            raise BadInputError(
                f"products must be a vector of whole numbers, got {products.dtype} of shape {products.shape}; number "
                "them with numpy.unique(names, return_inverse=True)[1]"
            )
        order = np.argsort(products, kind="stable")[int((products < 0).sum()) :]
        _, starts, counts = np.unique(products[order], return_index=True, return_counts=True)
        keep = counts >= min_images
        self._order, self._starts, self._counts = order, starts[keep], counts[keep]
        if len(self._starts) < 2:
            raise BadInputError(
                f"sampling needs at least 2 products with {min_images} or more images, found {len(self._starts)}"
            )
        self._p = min(products_per_batch, len(self._starts))
        self._k = images_per_product
        self._turns, self._seed = turns, seed
        self._visits = _visiting_order(seed, len(self._starts))
        self.batch_size = self._p * self._k
        self.steps_per_epoch = len(self._starts) // self._p

    def batch(self, step: int) -> Positions:
        """Positions of step `step`, the images of a product side by side."""
        rng = step_rng(self._seed, 1, step)
        if self._turns is None:
            epoch, turn = divmod(step, self.steps_per_epoch)
            chosen = self._visits(epoch)[turn * self._p : (turn + 1) * self._p]
        else:
            chosen = np.argsort(self._turns(), kind="stable")[: self._p]
        return np.concatenate([self._images(product, rng) for product in chosen])

    def _images(self, product: int, rng: np.random.Generator) -> Positions:
        count = int(self._counts[product])
        rounds = [rng.permutation(count) for _ in range(-(-self._k // count))]
        picked = np.concatenate(rounds)[: self._k]
        positions: Positions = self._order[self._starts[product] + picked]
        return positions


class UniformSampler(Sampler):
    """Every image at most once an epoch, in a new order, labelled or not.

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
            raise BadInputError(f"sampling needs at least 1 image and batch_size >= 1, got {count} and {batch_size}")
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


class StrongNegativeSampler(Sampler):
    """P products x K images a batch, as `PKSampler`, but products that are hard to tell apart come together.

    Products are visited in turn, each at most once an epoch, in a new order. A visited product brings one of its mined
    triplets: anchor, positive, and the products of the strong negatives with the very images that were mined. Random
    products fill what is left. No product is twice in a batch, and two that share a picture do not meet (save where a
    catalogue is too small for anything else), so any loss over labels takes these batches.

    Args:
        products: a product code for each image; -1 (unlabelled) takes no part. Products with one image are not
            visited, but they can be negatives and fill.
        mined: strong negatives by position in `products`, see `univert.training.mining`.
        batch_size: images a batch, P = batch_size / images_per_product; lowered to the number of products there are.
        images_per_product: K, at least 2: an anchor and a positive. A product with fewer gives some of them twice.
        negatives_per_anchor: products that a visited one brings along, at most.
        seed: of the order and the choices.

    Raises:
        BadInputError: K below 2, a batch of fewer than two products, fewer than two products, or none with two images.
    """

    def __init__(
        self,
        products: Int64[np.ndarray, "N"],
        mined: StrongNegatives,
        *,
        batch_size: int = 128,
        images_per_product: int = 4,
        negatives_per_anchor: int = 3,
        seed: int = 0,
    ) -> None:
        if images_per_product < 2 or batch_size < 2 * images_per_product or negatives_per_anchor < 1:
            raise BadInputError(
                "images_per_product must be at least 2, batch_size twice that and negatives_per_anchor at least 1, "
                f"got {images_per_product}, {batch_size} and {negatives_per_anchor}"
            )
        self._products, self._mined, self._seed = products, mined, seed
        self._by_product = np.argsort(products, kind="stable")[int((products < 0).sum()) :]
        self._codes, self._starts, self._counts = np.unique(
            products[self._by_product], return_index=True, return_counts=True
        )
        anchors = self._codes[self._counts > 1]
        if len(self._codes) < 2 or not len(anchors):
            raise BadInputError(
                f"sampling needs at least 2 products, one of them with 2 images, found {len(self._codes)} products "
                f"and {len(anchors)} with 2 images; label more images"
            )
        self._k, self._negatives = images_per_product, negatives_per_anchor
        self._p = min(batch_size // images_per_product, len(self._codes))
        self._visited = min(max(1, self._p // (1 + negatives_per_anchor)), len(anchors))
        self._anchors, self._visits = anchors, _visiting_order(seed, len(anchors))
        self._rows_by_product = np.argsort(products[mined.anchors], kind="stable")
        self._row_products = products[mined.anchors][self._rows_by_product]
        pairs = products[mined.protected]
        self._conflicts = {*map(tuple, pairs.tolist()), *map(tuple, pairs[:, ::-1].tolist())}
        self.batch_size = self._p * self._k
        self.steps_per_epoch = len(anchors) // self._visited

    def batch(self, step: int) -> Positions:
        """Positions of step `step`, the images of a product side by side, the mined ones first."""
        epoch, turn = divmod(step, self.steps_per_epoch)
        visit = self._anchors[self._visits(epoch)[turn * self._visited : (turn + 1) * self._visited]]
        rng = step_rng(self._seed, 1, step)
        chosen: dict[int, list[int]] = {}  # product -> the images of it that were mined
        for product in visit.tolist():
            self._add_with_negatives(product, chosen, rng)
        draws = rng.choice(len(self._codes), min(len(self._codes), 4 * self._p), replace=False)
        fill = self._codes[draws].tolist()
        for must_fit in (True, False):
            for product in fill:
                if len(chosen) < self._p and (self._fits(product, chosen) or not must_fit):
                    chosen.setdefault(product, [])
        return np.concatenate([self._images(product, first, rng) for product, first in chosen.items()])

    def _add_with_negatives(self, product: int, chosen: dict[int, list[int]], rng: np.random.Generator) -> None:
        if not self._fits(product, chosen):
            return
        low, high = np.searchsorted(self._row_products, [product, product + 1])
        if low == high:
            chosen[product] = []
            return
        row = self._rows_by_product[rng.integers(low, high)]
        chosen[product] = [int(self._mined.anchors[row]), int(self._mined.positives[row])]
        left = self._negatives
        for image in self._mined.negatives[row].tolist():
            other = int(self._products[image])
            if image >= 0 and left and len(chosen) < self._p and self._fits(other, chosen):
                chosen[other] = [image]
                left -= 1

    def _fits(self, product: int, chosen: dict[int, list[int]]) -> bool:
        return product not in chosen and not any((product, other) in self._conflicts for other in chosen)

    def _images(self, product: int, first: list[int], rng: np.random.Generator) -> Positions:
        at = int(np.searchsorted(self._codes, product))
        own = self._by_product[self._starts[at] : self._starts[at] + self._counts[at]]
        others = [image for image in rng.permutation(own).tolist() if image not in first]
        picked = [*first, *others]
        while len(picked) < self._k:
            picked += rng.permutation(own).tolist()
        return np.array(picked[: self._k], np.int64)


def balanced_sample(positions: Positions, groups: Positions, most: int, rng: np.random.Generator) -> Positions:
    """At most so many of some images, sorted; as many of each group as there is room for: small ones stay whole."""
    if len(positions) <= most:
        return positions
    order = rng.permutation(len(positions))
    turn = np.empty(len(order), np.int64)  # of each image within its group
    for group in np.unique(groups):
        here = groups[order] == group
        turn[here] = np.arange(here.sum())
    return np.sort(positions[order[np.argsort(turn, kind="stable")[:most]]])
