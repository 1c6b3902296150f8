"""Boxes in numpy: between a photo and the network's square, overlap, and which of many overlapping ones stay."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64

from univert.data.transforms import Preprocessing

Boxes = Float32[np.ndarray, "N 4"]
"""x0, y0, x1, y1 in pixels."""


def to_square(boxes: Boxes, size: tuple[int, int], preprocessing: Preprocessing) -> Boxes:
    """Boxes in a photo of (width, height) as boxes in the square that the network sees of it."""
    x0, y0, x1, y1 = preprocessing.frame_xyxy_px(size)
    scale = preprocessing.image_size_px / np.array([x1 - x0, y1 - y0] * 2)
    return np.asarray((boxes - np.array([x0, y0, x0, y0])) * scale, np.float32)


def to_photo(boxes: Boxes, size: tuple[int, int], preprocessing: Preprocessing) -> Boxes:
    """Boxes in the network's square as boxes in the photo of (width, height), clipped to it."""
    x0, y0, x1, y1 = preprocessing.frame_xyxy_px(size)
    scale = np.array([x1 - x0, y1 - y0] * 2) / preprocessing.image_size_px
    return clip(np.asarray(boxes * scale + np.array([x0, y0, x0, y0]), np.float32), size)


def clip(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    """Boxes limited to an image of (width, height); one that lies outside becomes a line on its edge."""
    width, height = size
    return np.asarray(np.clip(boxes, 0, np.array([width, height, width, height])), np.float32)


def overlaps(first: Boxes, second: Boxes) -> Float32[np.ndarray, "N M"]:
    """Intersection over union of all pairs; 0 for boxes without area."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(union), where=union > 0), np.float32)


def suppress(
    boxes: Boxes, scores: Float32[np.ndarray, "N"], labels: Int64[np.ndarray, "N"], max_overlap: float
) -> Int64[np.ndarray, "K"]:
    """Non-maximum suppression within each label: places of the boxes that stay, the surest first.

    The same as torchvision's `batched_nms`.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    for label in np.unique(labels):
        left = order[labels[order] == label]
        while len(left):
            kept.append(int(left[0]))
            rest = left[1:]
            left = rest[overlaps(boxes[left[:1]], boxes[rest])[0] <= max_overlap]
    return np.array(sorted(kept, key=lambda place: (-scores[place], place)), np.int64)


def choose(
    boxes: Boxes,
    scores: Float32[np.ndarray, "N K"],
    *,
    least_score: float,
    max_overlap: float,
    max_items: int,
    candidates: int = 400,
) -> tuple[Boxes, Float32[np.ndarray, "M"], Int64[np.ndarray, "M"]]:
    """What an SSD says of a photo, from the score of each label (without background) for each of its default boxes.

    The same as torchvision's `SSD.postprocess_detections`: of each label the `candidates` surest, then non-maximum
    suppression, then the `max_items` surest of all.

    Returns:
        boxes, scores and labels (from 0), the surest first.
    """
    places: list[np.ndarray] = []
    for label in range(scores.shape[1]):
        sure = np.flatnonzero(scores[:, label] > least_score)
        places.append(sure[np.argsort(-scores[sure, label], kind="stable")[:candidates]])
    labels = np.repeat(np.arange(scores.shape[1]), [len(one) for one in places])
    place = np.concatenate(places) if places else np.empty(0, np.int64)
    chosen, sureness = boxes[place], scores[place, labels]
    kept = suppress(chosen, sureness, labels, max_overlap)[:max_items]
    return chosen[kept], sureness[kept], labels[kept]
