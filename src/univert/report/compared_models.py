"""What can be compared: a model, a run, or a folder of specialists; from its place to vectors of a catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from univert.core.errors import BadInputError
from univert.core.files import folder_name
from univert.data.catalogue import Catalogue
from univert.models.embedder import Embedder

_CONFIG = "config.json"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One side of a comparison.

    Attributes:
        title: for people.
        vectors: one row an image of the catalogue.
        routed: they come from specialists; vectors of different verticals have nothing to do with each other.
    """

    title: str
    vectors: Float[np.ndarray, "N D"]
    routed: bool


def embed_subject(place: Path, catalogue: Catalogue, device: torch.device) -> Subject:
    """Embed a catalogue with whatever lies at a place.

    Args:
        place: a model's folder; a run's folder, which stands for its unified model; or a folder with a model for each
            vertical, such as a run's `specialists`: each then embeds its own vertical.
        catalogue: the images.
        device: of the network.

    Raises:
        BadInputError: there is none of them at the place, a vertical has no specialist, or their sizes differ.
    """
    if (place / _CONFIG).exists() or not place.is_dir():
        return _of_model(place, catalogue, device)
    if (place / "unified" / _CONFIG).exists():
        return _of_model(place / "unified", catalogue, device)
    folders = {vertical: place / folder_name(vertical) for vertical in catalogue.verticals}
    missing = [vertical for vertical, folder in folders.items() if not (folder / _CONFIG).exists()]
    if missing:
        raise BadInputError(
            f"{place} is neither a model, nor a run, nor a folder with a specialist for every vertical; "
            f"it has none for: {', '.join(missing)}"
        )
    verticals = catalogue.column("vertical")
    vectors = None
    for vertical, folder in folders.items():
        here = np.flatnonzero(verticals == vertical)
        own = _of_model(folder, catalogue.select(vertical=[vertical]), device).vectors
        if vectors is None:
            vectors = np.zeros((len(catalogue), own.shape[1]), np.float32)
        if own.shape[1] > vectors.shape[1]:  # a narrower specialist's missing columns are zeros
            vectors = np.pad(vectors, ((0, 0), (0, own.shape[1] - vectors.shape[1])))
        vectors[here, : own.shape[1]] = own
    if vectors is None:
        raise BadInputError("nothing to compare: the selection of the catalogue has no images")
    return Subject(title=_title(place), vectors=vectors, routed=True)


def _of_model(place: Path, catalogue: Catalogue, device: torch.device) -> Subject:
    model = Embedder.from_pretrained(place).to(device)
    return Subject(title=_title(place), vectors=model.embed_catalogue(catalogue, progress=True), routed=False)


def _title(place: Path) -> str:
    return "/".join(place.parts[-2:])
