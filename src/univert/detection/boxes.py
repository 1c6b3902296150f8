"""Boxes in numpy: from the network's square to the photo, and which of many overlapping ones stay."""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Float32, Int64

from univert.data.transforms import Preprocessing

Boxes = Float32[np.ndarray, "N 4"]
"""x0, y0, x1, y1 in pixels."""
Answer = tuple[Boxes, Float32[np.ndarray, "N K"]]
"""What is found in one photo: boxes, and how sure the detector is that each is an item of each vertical."""

MAX_OVERLAP: Final = 0.45
"""Of two boxes that share more than this (intersection over union), the one that is less sure goes."""
MAX_ITEMS: Final = 100
CANDIDATES: Final = 400
"""So many boxes, the surest, are looked at."""


def clip(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    """Boxes limited to an image of (width, height); one that lies outside becomes a line on its edge."""
    return np.asarray(np.clip(boxes, 0, np.array([*size, *size])), np.float32)


def overlaps(first: Boxes, second: Boxes) -> Float32[np.ndarray, "N M"]:
    """Intersection over union of all pairs; 0 for boxes without area."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(union), where=union > 0), np.float32)


def suppress(boxes: Boxes, scores: Float32[np.ndarray, "N"], max_overlap: float) -> Int64[np.ndarray, "K"]:
    """Non-maximum suppression, as torchvision's `nms`: places of the boxes that stay, the surest first."""
    left = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(left):
        kept.append(int(left[0]))
        rest = left[1:]
        left = rest[overlaps(boxes[left[:1]], boxes[rest])[0] <= max_overlap]
    return np.array(kept, np.int64)


def in_photo(answer: Answer, size: tuple[int, int], preprocessing: Preprocessing, least_score: float) -> Answer:
    """The items of a photo of (width, height), one box each, from what was found in the square the network sees.

    A box is an item as surely as it is one of any vertical: the sum of its scores. A network that is torn between two
    verticals may be in no doubt that there is something. Of boxes that overlap, the surest stays.

    Args:
        answer: what was found in the square, before non-maximum suppression or after.
        size: of the photo.
        preprocessing: from the photo to the square.
        least_score: boxes that are less surely an item are left out.

    Returns:
        boxes in pixels of the photo and within it, the surest first, at most `MAX_ITEMS`.
    """
    boxes, scores = answer
    sureness = scores.sum(1)
    sure = np.flatnonzero(sureness > least_score)
    sure = sure[np.argsort(-sureness[sure], kind="stable")[:CANDIDATES]]
    x0, y0, x1, y1 = preprocessing.frame_xyxy_px(size)
    scale = np.array([x1 - x0, y1 - y0] * 2) / preprocessing.image_size_px
    moved = clip(boxes[sure] * scale + np.array([x0, y0, x0, y0]), size)
    real = (moved[:, :2] < moved[:, 2:]).all(1)
    sure, moved = sure[real], moved[real]
    kept = suppress(moved, sureness[sure], MAX_OVERLAP)[:MAX_ITEMS]
    return moved[kept], scores[sure[kept]]


def one_label(boxes: Boxes, scores: Float32[np.ndarray, "N"], labels: Int64[np.ndarray, "N"], count: int) -> Answer:
    """The `Answer` of a detector that gives a box one label of `count`, from 0; boxes of other labels are left out."""
    known = (labels >= 0) & (labels < count)
    table = np.zeros((int(known.sum()), count), np.float32)
    table[np.arange(len(table)), labels[known]] = scores[known]
    return np.asarray(boxes[known], np.float32), table
