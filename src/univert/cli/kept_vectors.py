"""Embeddings of catalogues that commands keep, so that measuring a model again need not embed again."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from univert.core.files import fingerprint, write_atomic

if TYPE_CHECKING:
    from univert.data.catalogue import Catalogue
    from univert.models.embedder import Embedder

MOST_BYTES = 2_000_000_000
"""Of all that is kept; what was used longest ago goes first."""


def embed_once(model: Embedder, catalogue: Catalogue) -> Float[np.ndarray, "N D"]:
    """A model's unit vectors of a catalogue's images, in its order; read from disk where they were computed before.

    They lie in `univert/embeddings` in the user's folder for caches, and may be deleted.

    Raises:
        BadInputError: an image cannot be read.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "univert" / "embeddings"
    key = fingerprint(model.fingerprint, catalogue.fingerprint, str(model.device.type))
    path = folder / f"{key}.npy"
    if path.exists():
        path.touch()
        kept: np.ndarray = np.load(path, allow_pickle=False)
        return kept
    vectors = model.embed_catalogue(catalogue, progress=True)
    content = io.BytesIO()
    np.save(content, vectors, allow_pickle=False)
    try:
        write_atomic(path, content.getvalue())
        _make_room(folder)
    except OSError:  # without room for it, the next command embeds again
        pass
    return vectors


def _make_room(folder: Path) -> None:
    found = sorted(((path.stat(), path) for path in folder.glob("*.npy")), key=lambda one: -one[0].st_mtime)
    total = 0
    for status, path in found:
        total += status.st_size
        if total > MOST_BYTES:
            path.unlink(missing_ok=True)
