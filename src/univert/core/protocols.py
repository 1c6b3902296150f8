"""What searching and serving ask of a model and of a catalogue, so that they depend on neither's package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float


class Images(Protocol):
    """Images by position, with their catalogue columns: a catalogue, or a part of one."""

    def __len__(self) -> int: ...

    def column(self, name: str) -> np.ndarray:
        """A column over all positions, None as None."""
        ...

    def image_bytes(self, positions: Sequence[int]) -> list[bytes]:
        """Encoded images at these positions."""
        ...

    def boxes(self, positions: Sequence[int]) -> list[tuple[float, float, float, float] | None]:
        """The item's box (x0, y0, x1, y1), in pixels, in each of these images; None for the whole image."""
        ...


class CatalogueEmbedder(Protocol):
    """A model that turns a catalogue into unit vectors; equal fingerprints mean comparable vectors."""

    @property
    def size(self) -> int:
        """Length D of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of the model."""
        ...

    def embed_catalogue(self, catalogue: Images, batch_size: int = 64) -> Float[np.ndarray, "N D"]:
        """Unit vectors of a catalogue's images, in its order."""
        ...
