"""Strong negatives: the table that offline mining writes and a sampler reads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Int64

from univert.core.errors import BadInputError
from univert.core.files import write_atomic


@dataclass(frozen=True, kw_only=True)
class MiningStatistics:
    """What a mining looked at and found: of anchors and of anchor-positive pairs, those with a strong negative.

    Attributes:
        pairs_cut_short: those with some negatives, but fewer than K, whose window goes on where the neighbours that
            were looked at end. More neighbours might find more; where this is 0, the table is exact.
        protected_pairs: near-duplicate images under different products.
        protected_products: pairs of products that share a picture.
        excluded: strong negatives left out because of them, counted for each anchor-positive pair.
    """

    anchors: int = 0
    anchors_with_negatives: int = 0
    pairs: int = 0
    pairs_with_negatives: int = 0
    pairs_cut_short: int = 0
    protected_pairs: int = 0
    protected_products: int = 0
    excluded: int = 0

    @property
    def share(self) -> float:
        """Share of the anchors that have a strong negative; 0 where there are no anchors."""
        return self.anchors_with_negatives / max(1, self.anchors)


@dataclass(frozen=True, kw_only=True, eq=False)
class StrongNegatives:
    """A row for each anchor-positive pair that has strong negatives; all numbers are positions of images.

    Attributes:
        anchors: sorted.
        positives: another image of the anchor's product.
        negatives: nearest first, -1 where there are fewer than K.
        protected: near-duplicate images under different products, the smaller position first: most likely one
            product listed twice, worth correcting in the catalogue.
        statistics: counts.
    """

    anchors: Int64[np.ndarray, "T"]
    positives: Int64[np.ndarray, "T"]
    negatives: Int64[np.ndarray, "T K"]
    protected: Int64[np.ndarray, "M 2"]
    statistics: MiningStatistics

    @classmethod
    def none(cls) -> StrongNegatives:
        """An empty table: what is known before the first mining."""
        nothing = np.empty(0, np.int64)
        return cls(
            anchors=nothing,
            positives=nothing,
            negatives=nothing.reshape(0, 1),
            protected=nothing.reshape(0, 2),
            statistics=MiningStatistics(),
        )

    def __len__(self) -> int:
        return len(self.anchors)

    def save(self, path: Path, *, key: str = "") -> None:
        """Write a safetensors file, whole or not at all; `load` compares the key: what the table was mined from."""
        arrays = {name: getattr(self, name) for name in ("anchors", "positives", "negatives", "protected")}
        metadata = {"key": key, "statistics": json.dumps(asdict(self.statistics))}
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_atomic(path, safetensors.numpy.save(arrays, metadata))

    @classmethod
    def load(cls, path: Path, *, key: str = "") -> StrongNegatives | None:
        """Read what `save` wrote; None if there is no such file, or one with another key.

        Raises:
            BadInputError: the file is there but is no such table.
        """
        if not path.exists():
            return None
        try:
            with safetensors.safe_open(path, framework="np") as file:
                metadata = file.metadata()
                if metadata["key"] != key:
                    return None
                statistics = MiningStatistics(**json.loads(metadata["statistics"]))
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls(**arrays, statistics=statistics)
        except (safetensors.SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise BadInputError(f"{path}: not a readable table of strong negatives ({error}); delete it") from None
