"""Every picture that a log names, looked at once: its pixels, what is written over it, its hash and its vector."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int64
from PIL import Image

from univert.core.errors import BadInputError
from univert.core.files import write_atomic
from univert.core.protocols import CatalogueEmbedder
from univert.core.terminal import progress_bar
from univert.core.threads import decoding_threads, map_ahead
from univert.curation.overlaid_text import OverlayRater
from univert.curation.parts import Parts
from univert.curation.pixel_quality import rate_decoded
from univert.data.catalogue import Catalogue
from univert.data.decode import decode_rgb
from univert.data.duplicates import NearDuplicates, colour_grid, perceptual_hash
from univert.data.image_problem import ImageProblem
from univert.search.catalogue_changes import Part, text_columns

PICTURES: Final = pa.schema(
    [
        ("id", pa.string()),
        ("position", pa.int64()),
        ("why", pa.string()),
        ("hash", pa.uint64()),
        ("colours", pa.binary()),
    ]
)
"""A row a picture: `why` it is out, None if its pixels are good; `hash` and `colours` tell near-duplicates."""

_AT_ONCE: Final = 1_024
_DECODED_AT_ONCE: Final = 32
_WRITTEN_UPON: Final = 200
"""Pictures that the rater of overlaid text learns from, at most."""
_LEAST_WRITTEN_UPON: Final = 50


@dataclass(frozen=True, kw_only=True, eq=False)
class RatedPictures:
    """What is known of all pictures of a catalogue, by their positions.

    Attributes:
        images: the catalogue.
        why: why a picture is out; None for one that is good, or that nobody looked at.
        near: tells near-duplicates.
        looked_at: whether it was looked at.
    """

    images: Catalogue
    why: list[str | None]
    near: NearDuplicates
    looked_at: Bool[np.ndarray, " N"]

    @property
    def good(self) -> Bool[np.ndarray, " N"]:
        """Looked at, and nothing is wrong with it."""
        fine: Bool[np.ndarray, " N"] = np.array([reason is None for reason in self.why], dtype=bool)
        return np.asarray(self.looked_at & fine)


def rate_pictures(
    images: Catalogue, positions: Int64[np.ndarray, " P"], parts: Parts, clean: Catalogue
) -> RatedPictures:
    """Look at pictures: what is not in `parts` already.

    Args:
        images: the catalogue.
        positions: of the pictures, in the order of the parts.
        parts: with the schema `PICTURES`.
        clean: pictures without text over them, from which the rater of overlaid text learns.
    """
    waiting = positions[parts.count * _AT_ONCE :]
    with progress_bar("looking at pictures", len(positions), unit="pictures") as advance:
        advance(len(positions) - len(waiting))
        rater = _overlay_rater(clean) if len(waiting) else None
        few = (waiting[start : start + _DECODED_AT_ONCE] for start in range(0, len(waiting), _DECODED_AT_ONCE))
        # the same threads from the first picture to the last: what a network keeps for a thread is never given back
        looks = map_ahead(lambda some: _look(images, some, rater), few, workers=decoding_threads(None))
        with contextlib.closing(looks):
            for start in range(0, len(waiting), _AT_ONCE):
                chunk = waiting[start : start + _AT_ONCE]
                looked = itertools.islice(looks, math.ceil(len(chunk) / _DECODED_AT_ONCE))
                why, bits, colours = zip(*itertools.chain.from_iterable(looked), strict=True)
                parts.append(pa.table([images.column("id")[chunk], chunk, why, bits, colours], schema=PICTURES))
                advance(len(chunk))
    return _read(images, parts)


def embed_pictures(
    model: CatalogueEmbedder, images: Catalogue, positions: Int64[np.ndarray, " G"], path: Path, inputs: str
) -> Float[np.ndarray, "G D"]:
    """Unit vectors of pictures, on the disk: `path` grows, and a killed call goes on where it was.

    Args:
        model: makes the vectors.
        images: the catalogue.
        positions: of the pictures.
        path: a `.npy` file.
        inputs: a fingerprint of what the vectors are made from.
    """
    noted = path.with_suffix(".json")
    done = 0
    if path.exists() and noted.exists():
        told = json.loads(noted.read_text(encoding="utf-8"))
        done = told["done"] if told["inputs"] == inputs else 0
    shape = (len(positions), model.size)
    if done == 0:
        noted.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    vectors = np.lib.format.open_memmap(
        path, "r+" if done else "w+", None if done else np.float32, None if done else shape
    )
    columns = text_columns(images)
    with progress_bar("embedding pictures", len(positions), unit="pictures") as advance:
        advance(done)
        for start in range(done, len(positions), _AT_ONCE):
            chunk = positions[start : start + _AT_ONCE]
            vectors[start : start + len(chunk)] = model.embed_catalogue(Part(images, columns, chunk.tolist()))
            vectors.flush()
            write_atomic(noted, json.dumps({"inputs": inputs, "done": start + len(chunk)}))
            advance(len(chunk))
    return vectors


def _look(
    images: Catalogue, positions: Sequence[int] | np.ndarray, rater: OverlayRater | None
) -> list[tuple[str | None, int, bytes]]:
    """Why each picture is out, its hash and its colours."""
    found: list[tuple[str | None, int, bytes]] = []
    clear: list[tuple[int, Image.Image]] = []
    contents, boxes = images.image_bytes(positions), images.boxes(positions)
    for place, (content, box) in enumerate(zip(contents, boxes, strict=True)):
        try:
            image = decode_rgb(content, box_xyxy_px=box, background_rgb=images.background_rgb)
            reasons = rate_decoded(image, content).reasons
        except (ImageProblem, BadInputError) as problem:
            found.append((f"cannot be read: {problem}", 0, b""))
            continue
        found.append(("; ".join(reasons) or None, int(perceptual_hash(image)), colour_grid(image).tobytes()))
        if not reasons:
            clear.append((place, image))
    if rater is not None and clear:
        for (place, _), why in zip(clear, rater.reasons([image for _, image in clear]), strict=True):
            found[place] = (why, *found[place][1:])
    return found


def _overlay_rater(clean: Catalogue) -> OverlayRater | None:
    """Learned from some pictures and copies that are written upon; None where they are too few."""
    some = np.sort(np.random.default_rng(0).permutation(len(clean))[:_WRITTEN_UPON])
    pictures = []
    for content, box in zip(clean.image_bytes(some), clean.boxes(some), strict=True):
        image = decode_rgb(content, box_xyxy_px=box, background_rgb=clean.background_rgb)
        if rate_decoded(image, content).good:
            pictures.append(image)
    return OverlayRater.learn(pictures) if len(pictures) >= _LEAST_WRITTEN_UPON else None


def _read(images: Catalogue, parts: Parts) -> RatedPictures:
    why: list[str | None] = [None] * len(images)
    bits, colours = np.zeros(len(images), np.uint64), np.zeros((len(images), 48), np.uint8)
    looked_at = np.zeros(len(images), bool)
    for table in parts:
        positions = table["position"].to_numpy()
        looked_at[positions] = True
        bits[positions] = table["hash"].to_numpy()
        for position, reason, colour in zip(
            positions.tolist(), table["why"].to_pylist(), table["colours"].to_pylist(), strict=True
        ):
            why[position] = reason
            if colour:
                colours[position] = np.frombuffer(colour, np.uint8)
    return RatedPictures(images=images, why=why, near=NearDuplicates(bits=bits, colours=colours), looked_at=looked_at)
