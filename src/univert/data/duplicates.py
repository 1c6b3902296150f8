"""Near-duplicates: the same picture once more, re-encoded or resized, told by a hash of its pixels and its colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8, UInt64
from PIL import Image

from univert.core.terminal import progress_bar
from univert.core.threads import decoding_threads, map_ahead
from univert.data.catalogue import Catalogue
from univert.data.decode import decode_rgb

MAX_BITS = 4
"""Of 64 bits, how many may differ: 92% of the bundled sample's icons stay within 4 when saved as JPEG at quality 90."""

MAX_COLOUR_DIFFERENCE = 24
"""Of 255, how far the mean colour of any sixteenth may differ. Saving and shrinking change it by up to 18; two flags
with the same stripes, or one shirt in two colours, differ by 100."""

MAX_DISTANCE = 0.3
"""Squared distance between the base network's vectors, where given: saving as JPEG moves a picture by 0.06 (quality 90)
or 0.17 (50), another picture of the same product is 0.8 away (medians). Not enough by itself: networks hardly tell a
picture from its mirror image, so a clock at five and one at seven are only 0.03 apart."""

_SIDE_PX, _KEPT, _GRID = 32, 8, 4
_DRAFT_PX = 4 * _SIDE_PX
_IMAGES_AT_ONCE = 64

_waves = np.arange(_KEPT)[:, None] * (2 * np.arange(_SIDE_PX) + 1) * (np.pi / (2 * _SIDE_PX))
_COSINES = np.cos(_waves)


def perceptual_hash(image: Image.Image) -> np.uint64:
    """64 bits of a picture's coarse structure; few of them change when it is re-encoded or resized.

    The picture in grey, 32 x 32; its 64 lowest frequencies in both directions (a cosine transform); a bit for each
    says whether it is above their median ("pHash"). Shifted, strongly cropped, turned or mirrored pictures differ.

    Args:
        image: mode RGB.

    Example:
        >>> ramp = Image.linear_gradient("L").convert("RGB")
        >>> int(perceptual_hash(ramp) ^ perceptual_hash(ramp.resize((50, 50)))).bit_count() <= MAX_BITS
        True
    """
    small = image.convert("L").resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BICUBIC)
    frequencies = (_COSINES @ np.asarray(small, np.float64) @ _COSINES.T).ravel()
    # the tolerance: a blank picture has frequencies of +-1e-12 whose signs mean nothing
    above = frequencies > np.median(frequencies[1:]) + 1e-6
    bits: np.uint64 = np.packbits(above).view(">u8")[0]
    return bits


def colour_grid(image: Image.Image) -> UInt8[np.ndarray, "48"]:
    """Mean colours of the sixteen parts of an RGB picture, 4 x 4 x RGB."""
    return np.asarray(image.resize((_GRID, _GRID), Image.Resampling.BOX)).reshape(-1)


@dataclass(frozen=True, kw_only=True, eq=False)
class PictureHashes:
    """What is remembered of each picture: its `perceptual_hash` and its `colour_grid`."""

    bits: UInt64[np.ndarray, "N"]
    colours: UInt8[np.ndarray, "N 48"]


def picture_hashes(catalogue: Catalogue, *, workers: int | None = None) -> PictureHashes:
    """Hashes of all images of a catalogue, each within its box, decoded in as many threads as `decoding_threads` says.

    Raises:
        BadInputError: an image cannot be decoded, or `workers` is not positive.
    """
    count = len(catalogue)
    bits, colours = np.empty(count, np.uint64), np.empty((count, 3 * _GRID * _GRID), np.uint8)

    def fill(chunk: range) -> int:
        contents, boxes = catalogue.image_bytes(chunk), catalogue.boxes(chunk)
        for position, content, box in zip(chunk, contents, boxes, strict=True):
            picture = decode_rgb(content, box_xyxy_px=box, background_rgb=catalogue.background_rgb, draft_px=_DRAFT_PX)
            bits[position], colours[position] = perceptual_hash(picture), colour_grid(picture)
        return len(chunk)

    chunks = [range(start, min(start + _IMAGES_AT_ONCE, count)) for start in range(0, count, _IMAGES_AT_ONCE)]
    with progress_bar("hashing pictures", count) as advance:
        for done in map_ahead(fill, chunks, workers=decoding_threads(workers)):
            advance(done)
    return PictureHashes(bits=bits, colours=colours)


@dataclass(frozen=True, kw_only=True, eq=False)
class NearDuplicates:
    """Tells whether images are near-duplicates: hash and colours agree, and so do the vectors, where there are any.

    Both must agree because each errs where the other does not: a hash misses small details, and the vectors of a
    network miss mirror images. The limits are strict, since a mistake costs a fine-grained catalogue one of its hardest
    negatives.

    Attributes:
        hashes: of all images.
        vectors: unit vectors of all images by the *untrained* base network; None to go by the pixels alone.
            Vectors of the model in training will not do: it may have learned to tell what is one picture apart.

    Example:
        >>> pictures = [Image.new("RGB", (40, 30), colour) for colour in ("red", "darkred", "red")]
        >>> hashes = PictureHashes(
        ...     bits=np.array([perceptual_hash(p) for p in pictures]),
        ...     colours=np.array([colour_grid(p) for p in pictures]),
        ... )
        >>> NearDuplicates(hashes=hashes)(np.array([0, 0]), np.array([1, 2])).tolist()
        [False, True]
    """

    hashes: PictureHashes
    vectors: Float[np.ndarray, "N F"] | None = None

    def __call__(self, rows: Int64[np.ndarray, "*#S"], others: Int64[np.ndarray, "*#S"]) -> Bool[np.ndarray, "*S"]:
        """Whether images are near-duplicates of others, by their positions; shapes broadcast."""
        bits = self.hashes.bits
        found = np.asarray(np.bitwise_count(bits[rows] ^ bits[others]) <= MAX_BITS)
        rows, others = np.broadcast_arrays(rows, others)
        # few pass the hash, so the dearer comparisons look at those alone
        left, right = rows[found], others[found]
        colours = self.hashes.colours
        difference = np.abs(colours[left].astype(np.int16) - colours[right]).max(axis=1, initial=0)
        agree = difference <= MAX_COLOUR_DIFFERENCE
        if self.vectors is not None:
            apart = self.vectors[left] - self.vectors[right]
            agree &= np.einsum("nf,nf->n", apart, apart) <= MAX_DISTANCE
        found[found] = agree
        return found
