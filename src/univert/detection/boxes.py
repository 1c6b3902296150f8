"""Boxes in numpy: from the network's square to the photo, and which of many overlapping ones stay."""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Float32, Int64

from univert.data.transforms import Preprocessing

Boxes = Float32[np.ndarray, "N 4"]
"""x0, y0, x1, y1 in pixels."""
Answer = tuple[Boxes, Float32[np.ndarray, "N"], Int64[np.ndarray, "N"]]
"""What is found in one photo: boxes, scores, and labels from 0; the surest first."""

MAX_OVERLAP: Final = 0.45
"""Of two boxes of one label that share more than this (intersection over union), the one that is less sure goes."""
ONE_ITEM: Final = 0.6
"""Boxes of two labels that share more than this are one item under two names: the name that is less sure goes."""
MAX_ITEMS: Final = 100
CANDIDATES: Final = 400
"""So many boxes of each label, the surest, are looked at."""


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


def choose(boxes: Boxes, scores: Float32[np.ndarray, "N K"], least_score: float) -> Answer:
    """What an SSD says of a photo, from the score of each label (without background) for each of its default boxes.

    The same as torchvision's `SSD.postprocess_detections`: of each label the surest, then non-maximum suppression, then
    the surest of all.
    """
    places: list[np.ndarray] = [np.empty(0, np.int64)]
    labels: list[np.ndarray] = [np.empty(0, np.int64)]
    for label, sureness in enumerate(scores.T):
        sure = np.flatnonzero(sureness > least_score)
        sure = sure[np.argsort(-sureness[sure], kind="stable")[:CANDIDATES]]
        places.append(sure[suppress(boxes[sure], sureness[sure], MAX_OVERLAP)])
        labels.append(np.full(len(places[-1]), label))
    place, of_label = np.concatenate(places), np.concatenate(labels)
    best = np.argsort(-scores[place, of_label], kind="stable")[:MAX_ITEMS]
    return boxes[place[best]], scores[place[best], of_label[best]], of_label[best]


def in_photo(answer: Answer, size: tuple[int, int], preprocessing: Preprocessing) -> Answer:
    """What was found in the square that the network sees, in pixels of the photo of (width, height): a box an item.

    Boxes are clipped to the photo; of boxes of several labels for one item the surest stays (`ONE_ITEM`).
    """
    boxes, scores, labels = answer
    x0, y0, x1, y1 = preprocessing.frame_xyxy_px(size)
    scale = np.array([x1 - x0, y1 - y0] * 2) / preprocessing.image_size_px
    boxes = clip(np.asarray(boxes * scale + np.array([x0, y0, x0, y0]), np.float32), size)
    kept = suppress(boxes, scores, ONE_ITEM)
    return boxes[kept], scores[kept], labels[kept]
