"""Strong negatives mined anew while a model learns, with exact resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from univert.core.errors import BadInputError
from univert.data.samplers import Positions, Sampler
from univert.data.strong_negatives import StrongNegatives
from univert.models.embedder import Embedder
from univert.training.mining import Protect, mine_strong_negatives
from univert.training.sources import Source


class ReminingSampler(Sampler):
    """Batches from a table of strong negatives that is mined anew every so many steps.

    A table is mined when a batch of it is first asked for, and saved before the batch is given. The loop asks for a
    batch one step ahead, so when it writes a checkpoint, the table of the next step is on disk: a run that was killed
    reads it, and walks the very same path. So the files must not outlive the checkpoint; keep both in one folder.

    Args:
        mine: gives a table from the model as it stands; see `miner_of`.
        sample: gives the sampler of a table; `batch_size` and `steps_per_epoch` must not depend on the table.
        every_steps: how long a table serves.
        folder: for `strong-negatives-J.safetensors`, J counting from 0.

    Raises:
        BadInputError: `every_steps` is below 1.
    """

    def __init__(
        self,
        mine: Callable[[], StrongNegatives],
        sample: Callable[[StrongNegatives], Sampler],
        *,
        every_steps: int,
        folder: Path,
    ) -> None:
        if every_steps < 1:
            raise BadInputError(f"every_steps must be at least 1, got {every_steps}; 500 is a start")
        self._mine, self._sample, self._every_steps = mine, sample, every_steps
        self._folder = folder
        self._current: tuple[int, Sampler] | None = None
        plain = sample(StrongNegatives.none())
        self.batch_size, self.steps_per_epoch = plain.batch_size, plain.steps_per_epoch

    def batch(self, step: int) -> Positions:
        """Positions of step `step`; mines where its table is missing."""
        number = step // self._every_steps
        if self._current is None or self._current[0] != number:
            path = self._folder / f"strong-negatives-{number}.safetensors"
            table = StrongNegatives.load(path)
            if table is None:
                table = self._mine()
                table.save(path)
            self._current = number, self._sample(table)
        return self._current[1].batch(step)


def miner_of(
    embedder: Embedder,
    source: Source,
    products: Int64[np.ndarray, "N"],
    verticals: Int64[np.ndarray, "N"] | None = None,
    *,
    margin: float = 0.2,
    protect: Protect | None = None,
    seed: int = 0,
) -> Callable[[], StrongNegatives]:
    """A function that embeds the labelled images with the model as it stands, and mines them.

    The mode of the model (training or not) is left as it was. `products` has the code of every image of the catalogue,
    -1 for all that do not take part. For the rest see `mine_strong_negatives`.
    """
    positions = np.flatnonzero(products >= 0)

    def mine() -> StrongNegatives:
        training = embedder.training
        vectors = np.zeros((len(products), embedder.size), np.float32)
        vectors[positions] = source.embed_all(embedder, positions)
        embedder.train(training)
        return mine_strong_negatives(vectors, products, verticals, margin=margin, protect=protect, seed=seed)

    return mine
