"""Strong negatives: the table that offline mining writes and a sampler reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Int64

from univert.core.errors import BadInputError
from univert.core.files import write_atomic

_ARRAYS = ("anchors", "positives", "negatives", "protected")


@dataclass(frozen=True, kw_only=True, eq=False)
class StrongNegatives:
    """A row for each anchor-positive pair that has strong negatives; all numbers are positions of images.

    Attributes:
        anchors: sorted.
        positives: another image of the anchor's product.
        negatives: nearest first, -1 where there are fewer than K.
        protected: near-duplicate images under different products, the smaller position first: most likely one
            product listed twice, worth correcting in the catalogue.
        anchors_searched: images that were an anchor at all, with strong negatives or without.
    """

    anchors: Int64[np.ndarray, "T"]
    positives: Int64[np.ndarray, "T"]
    negatives: Int64[np.ndarray, "T K"]
    protected: Int64[np.ndarray, "M 2"]
    anchors_searched: int = 0

    @property
    def share(self) -> float:
        """Share of the anchors that have a strong negative; 0 where there are no anchors."""
        return len(np.unique(self.anchors)) / max(1, self.anchors_searched)

    @classmethod
    def none(cls) -> StrongNegatives:
        """An empty table: what is known before the first mining."""
        nothing = np.empty(0, np.int64)
        return cls(anchors=nothing, positives=nothing, negatives=nothing.reshape(0, 1), protected=nothing.reshape(0, 2))

    def __len__(self) -> int:
        return len(self.anchors)

    def save(self, path: Path) -> None:
        """Write a safetensors file, whole or not at all."""
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        write_atomic(path, safetensors.numpy.save(arrays, {"anchors_searched": str(self.anchors_searched)}))

    @classmethod
    def load(cls, path: Path) -> StrongNegatives | None:
        """Read what `save` wrote; None if there is no such file.

        Raises:
            BadInputError: the file is there but is no such table.
        """
        if not path.exists():
            return None
        try:
            with safetensors.safe_open(path, framework="np") as file:
                arrays = {name: file.get_tensor(name) for name in _ARRAYS}
                return cls(**arrays, anchors_searched=int(file.metadata()["anchors_searched"]))
        except (safetensors.SafetensorError, KeyError, TypeError) as error:
            raise BadInputError(f"{path}: not a readable table of strong negatives ({error}); delete it") from None
