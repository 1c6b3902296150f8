"""Every picture that a log names, looked at once: its pixels, what is written over it, its hash and its vector."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int64
from PIL import Image

from univert.core.errors import BadInputError
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

EMBEDDED: Final = pa.schema([("position", pa.int64())])
"""The pictures that have a vector in `vectors.npy`."""

_AT_ONCE: Final = 1_024
_DECODED_AT_ONCE: Final = 32
_WRITTEN_UPON: Final = 200
"""Pictures of a catalogue that the rater of overlaid text learns from, at most."""
_LEAST_WRITTEN_UPON: Final = 50
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class RatedPictures:
    """What is known of all pictures of a catalogue, by their positions.

    Attributes:
        images: the catalogue.
        why: why a picture is out; None for one that is good, or that nobody looked at.
        good: looked at, and nothing is wrong with it.
        near: tells near-duplicates.
    """

    images: Catalogue
    why: list[str | None]
    good: Bool[np.ndarray, " N"]
    near: NearDuplicates


def rate_pictures(
    images: Catalogue, positions: Int64[np.ndarray, " P"], parts: Parts, clean: Catalogue
) -> RatedPictures:
    """Look at pictures: those that are not in `parts` already.

    Args:
        images: the catalogue.
        positions: of the pictures.
        parts: with the schema `PICTURES`.
        clean: other pictures, most of them without text over them; from some of these and some of the catalogue's
            the rater of overlaid text learns. From a shop's own alone it takes what is new in others for text.
    """
    waiting = _without(positions, parts)
    with progress_bar("looking at pictures", len(positions), unit="pictures") as advance:
        advance(len(positions) - len(waiting))
        rater = _overlay_rater(images, clean) if len(waiting) else None
        few = (waiting[start : start + _DECODED_AT_ONCE] for start in range(0, len(waiting), _DECODED_AT_ONCE))
        # the same threads from the first picture to the last: what a network keeps for a thread is never given back
        looks = map_ahead(lambda some: _look(images, some, rater), few, workers=decoding_threads(None))
        with contextlib.closing(looks):
            for start in range(0, len(waiting), _AT_ONCE):
                chunk = waiting[start : start + _AT_ONCE]
                looked = []
                for some in itertools.islice(looks, math.ceil(len(chunk) / _DECODED_AT_ONCE)):
                    looked += some
                    advance(len(some))
                why, bits, colours = zip(*looked, strict=True)
                parts.append(pa.table([images.column("id")[chunk], chunk, why, bits, colours], schema=PICTURES))
    return _read(images, parts)


def embed_pictures(
    title: str, model: CatalogueEmbedder, images: Catalogue, positions: Int64[np.ndarray, " P"], parts: Parts
) -> Float[np.ndarray, "N D"]:
    """Unit vectors of pictures, by position, on the disk: those that are not in `parts` already are made.

    Args:
        title: of the progress.
        model: makes the vectors.
        images: the catalogue, of N pictures.
        positions: of the pictures; the others' vectors are zero, and take no space.
        parts: with the schema `EMBEDDED`; `vectors.npy` lies beside them.
    """
    path, draft = parts.folder / "vectors.npy", parts.folder / "draft.npy"
    if not path.exists():
        np.lib.format.open_memmap(draft, "w+", np.float32, (len(images), model.size)).flush()
        draft.replace(path)
    vectors = np.lib.format.open_memmap(path, "r+")
    waiting, columns = _without(positions, parts), text_columns(images)
    with progress_bar(title, len(positions), unit="pictures") as advance:
        advance(len(positions) - len(waiting))
        for start in range(0, len(waiting), _AT_ONCE):
            chunk = waiting[start : start + _AT_ONCE]
            vectors[chunk] = model.embed_catalogue(Part(images, columns, chunk.tolist()))
            vectors.flush()
            parts.append(pa.table([chunk], schema=EMBEDDED))
            advance(len(chunk))
    return vectors


def _without(positions: Int64[np.ndarray, " P"], parts: Parts) -> Int64[np.ndarray, " W"]:
    """Those that are not in `parts`."""
    done = [parts.read(part, ["position"])["position"].to_numpy() for part in range(parts.count)]
    return np.setdiff1d(positions, np.concatenate([np.zeros(0, np.int64), *done]))


def _look(
    images: Catalogue, positions: Sequence[int] | np.ndarray, rater: OverlayRater | None
) -> list[tuple[str | None, int, bytes]]:
    """Why each picture is out, its hash and its colours."""
    found: list[tuple[str | None, int, bytes]] = []
    clear: list[tuple[int, Image.Image]] = []
    for place, picture in enumerate(_decoded(images, positions)):
        if isinstance(picture, str):
            found.append((f"cannot be read: {picture}", 0, b""))
            continue
        image, content = picture
        reasons = rate_decoded(image, content).reasons
        found.append(("; ".join(reasons) or None, int(perceptual_hash(image)), colour_grid(image).tobytes()))
        if not reasons:
            clear.append((place, image))
    if rater is not None and clear:
        for (place, _), why in zip(clear, rater.reasons([image for _, image in clear]), strict=True):
            found[place] = (why, *found[place][1:])
    return found


def _decoded(images: Catalogue, positions: Sequence[int] | np.ndarray) -> Iterator[tuple[Image.Image, bytes] | str]:
    """Pictures with their encoded bytes, or why one cannot be read."""
    try:
        contents: list[bytes | None] = list(images.image_bytes(positions))
    except BadInputError:  # the file of one is gone
        contents = [None] * len(positions)
    for position, content, box in zip(positions, contents, images.boxes(positions), strict=True):
        try:
            content = content or images.image_bytes([position])[0]
            yield decode_rgb(content, box_xyxy_px=box, background_rgb=images.background_rgb), content
        except (ImageProblem, BadInputError) as problem:
            yield str(problem)


def _overlay_rater(*catalogues: Catalogue) -> OverlayRater | None:
    """Learned from some pictures of each and copies that are written upon; None where they are too few."""
    pictures = []
    for catalogue in {one.path: one for one in catalogues}.values():
        some = np.sort(np.random.default_rng(0).permutation(len(catalogue))[:_WRITTEN_UPON])
        decoded = (one for one in _decoded(catalogue, some) if not isinstance(one, str))
        pictures += [image for image, content in decoded if rate_decoded(image, content).good]
    if len(pictures) < _LEAST_WRITTEN_UPON:
        _log.warning(
            "text over pictures is not looked for: that is learned from %s good pictures, and there are %s",
            _LEAST_WRITTEN_UPON,
            len(pictures),
        )
        return None
    return OverlayRater.learn(pictures)


def _read(images: Catalogue, parts: Parts) -> RatedPictures:
    why: list[str | None] = [None] * len(images)
    bits, colours = np.zeros(len(images), np.uint64), np.zeros((len(images), 48), np.uint8)
    good = np.zeros(len(images), bool)
    for table in parts:
        positions = table["position"].to_numpy()
        good[positions] = table["why"].is_null().to_numpy()
        bits[positions] = table["hash"].to_numpy()
        for position, reason, colour in zip(
            positions.tolist(), table["why"].to_pylist(), table["colours"].to_pylist(), strict=True
        ):
            why[position] = reason
            if colour:
                colours[position] = np.frombuffer(colour, np.uint8)
    return RatedPictures(images=images, why=why, good=good, near=NearDuplicates(bits=bits, colours=colours))
