"""Near-duplicates: the same picture once more, re-encoded or resized, told by a hash of its pixels and its colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64, UInt8, UInt64
from PIL import Image

from univert.core.terminal import progress_bar
from univert.core.threads import decoding_threads, map_ahead
from univert.data.catalogue import Catalogue
from univert.data.decode import decode_rgb

MAX_BITS = 4
"""Of 64 bits, how many may differ: 92% of some emoji stay within 4 when saved as JPEG at quality 90."""

MAX_COLOUR_DIFFERENCE = 24
"""Of 255, how far the mean colour of any sixteenth may differ. Saving and shrinking change it by up to 18; two flags
with the same stripes, or one shirt in two colours, differ by 100."""

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


def near_duplicates(catalogue: Catalogue) -> NearDuplicates:
    """Look at all images of a catalogue, each within its box.

    Raises:
        BadInputError: an image cannot be decoded.
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
        for done in map_ahead(fill, chunks, workers=decoding_threads(None)):
            advance(done)
    return NearDuplicates(bits=bits, colours=colours)


@dataclass(frozen=True, kw_only=True, eq=False)
class NearDuplicates:
    """Tells whether images are near-duplicates: hash and colours agree.

    The limits are strict, since a mistake costs a fine-grained catalogue one of its hardest negatives.

    Attributes:
        bits: the `perceptual_hash` of each image.
        colours: the `colour_grid` of each.

    Example:
        >>> pictures = [Image.new("RGB", (40, 30), colour) for colour in ("red", "darkred", "red")]
        >>> near = NearDuplicates(
        ...     bits=np.array([perceptual_hash(p) for p in pictures]),
        ...     colours=np.array([colour_grid(p) for p in pictures]),
        ... )
        >>> near(np.array([0, 0]), np.array([1, 2])).tolist()
        [False, True]
    """

    bits: UInt64[np.ndarray, "N"]
    colours: UInt8[np.ndarray, "N 48"]

    def __call__(self, rows: Int64[np.ndarray, "*#S"], others: Int64[np.ndarray, "*#S"]) -> Bool[np.ndarray, "*S"]:
        """Whether images are near-duplicates of others, by their positions; shapes broadcast."""
        found = np.asarray(np.bitwise_count(self.bits[rows] ^ self.bits[others]) <= MAX_BITS)
        rows, others = np.broadcast_arrays(rows, others)
        # few pass the hash, so the dearer comparison looks at those alone
        difference = np.abs(self.colours[rows[found]].astype(np.int16) - self.colours[others[found]])
        found[found] = difference.max(axis=1, initial=0) <= MAX_COLOUR_DIFFERENCE
        return found
