"""How well items are found: COCO's average precision and recall, computed by faster-coco-eval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from univert.core.errors import BadInputError

Truth = tuple[Float[np.ndarray, "N 4"], Int[np.ndarray, "N"], Float[np.ndarray, "I 4"]]
"""What a photo shows: boxes (x0, y0, x1, y1 in pixels of the photo), the number of each one's vertical, and boxes of
what is ignored: it need not be found, and is no mistake if it is."""
Found = tuple[Float[np.ndarray, "M 4"], Float[np.ndarray, "M K"]]
"""What was found in it: boxes, and how sure each is an item of each vertical."""

SIZES_PX = {"small": (0, 32), "medium": (32, 96), "large": (96, 100_000)}
"""COCO's sizes of items: the square root of the box's area, from and to."""
MAX_FOUND = 100
LEAST_SCORE = 0.02
"""Answers that are less sure are not measured."""
RECALLS = np.linspace(0, 1, 101)
"""Average precision is the mean of the precisions at these recalls."""


@dataclass(frozen=True, kw_only=True)
class DetectionFigures:
    """How well items are found in some photos. Average precisions and recalls lie in 0..1; None where there is no item.

    Attributes:
        photos: how many.
        items: how many they show.
        map: mean over the verticals of the average precision, itself the mean over overlaps of 0.50, 0.55, ... 0.95.
        map_50: the same at an overlap (intersection over union) of 0.5 alone.
        any_vertical_ap_50: average precision at 0.5 if verticals do not matter.
        recall_50: share of the items of each size (`SIZES_PX`) that are found at 0.5 among 100 boxes a photo, if
            verticals do not matter.
        verticals: average precision at 0.5 of each vertical that is shown.
        best_score: the least score at which precision and recall at 0.5 balance best, if verticals do not matter.
            Recall counts twice (F2): who misses an item cannot ask for it, while one box too many can be passed over.
    """

    photos: int
    items: int
    map: float | None
    map_50: float | None
    any_vertical_ap_50: float | None
    recall_50: dict[str, float | None]
    verticals: dict[str, float]
    best_score: float


def detection_figures(truth: Sequence[Truth], found: Sequence[Found], verticals: Sequence[str]) -> DetectionFigures:
    """Measure what was found in photos against what they show.

    Args:
        truth: one a photo.
        found: one a photo, in the same order.
        verticals: names by number.

    Raises:
        BadInputError: not equally many, or faster-coco-eval is not installed.
    """
    if len(truth) != len(found):
        raise BadInputError(f"truth and found must have one entry a photo, got {len(truth)} and {len(found)}")
    measured = _measure(truth, found, len(verticals), by_vertical=True)
    precision = measured["precision"][..., 0]
    anything = _measure(truth, found, len(verticals), by_vertical=False)
    any_precision, recall = anything["precision"][0, :, 0, 0], anything["recall"][0, 0, 1:]
    balance = 5 * any_precision * RECALLS / np.maximum(4 * any_precision + RECALLS, 1e-9)
    best = int(balance.argmax())
    least = float(anything["scores"][0, best, 0, 0]) if balance[best] > 0 else 0.5
    return DetectionFigures(
        photos=len(truth),
        items=sum(len(boxes) for boxes, *_ in truth),
        map=_mean(precision),
        map_50=_mean(precision[0]),
        any_vertical_ap_50=_mean(any_precision),
        recall_50={name: _mean(one) for name, one in zip(SIZES_PX, recall, strict=True)},
        verticals={name: float(one.mean()) for name, one in zip(verticals, precision[0].T, strict=True) if one[0] > -1},
        best_score=math.floor(100 * least) / 100,
    )


def _measure(
    truth: Sequence[Truth], found: Sequence[Found], count: int, *, by_vertical: bool
) -> dict[str, Float[np.ndarray, "..."]]:
    """COCO's `precision` and `scores` by overlap, recall, vertical and size; `recall` by overlap, vertical and size."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise BadInputError("measuring detection needs faster-coco-eval: pip install 'univert[detect]'") from None
    shown: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for photo, ((boxes, labels, ignored), (found_boxes, scores)) in enumerate(zip(truth, found, strict=True), start=1):
        shown += [_annotation(photo, *one, iscrowd=0) for one in zip(boxes, labels, strict=True)]
        shown += [_annotation(photo, box, label, iscrowd=1) for box in ignored for label in range(count)]
        if not by_vertical:
            scores = scores.sum(1, keepdims=True)
        for place, label in np.argwhere(scores > LEAST_SCORE):
            answers.append(_annotation(photo, found_boxes[place], label, score=float(scores[place, label])))
    coco = COCO(
        {
            "images": [{"id": photo, "width": 1, "height": 1} for photo in range(1, len(truth) + 1)],
            "categories": [{"id": number, "name": str(number)} for number in range(1, count + 1)],
            "annotations": [{"id": number, **one} for number, one in enumerate(shown, start=1)],
        }
    )
    ranges = {name: [low**2, high**2] for name, (low, high) in SIZES_PX.items()}
    evaluation = COCOeval_faster(coco, coco.loadRes(answers), "bbox", ranges=ranges, print_function=lambda *_: None)
    evaluation.params.maxDets = [MAX_FOUND]
    evaluation.params.useCats = int(by_vertical)
    evaluation.params.recThrs = RECALLS
    evaluation.evaluate()
    evaluation.accumulate()
    return {name: np.asarray(evaluation.eval[name])[..., -1] for name in ("precision", "scores", "recall")}


def _annotation(photo: int, box: np.ndarray, label: int, **others: float) -> dict[str, Any]:
    x0, y0, x1, y1 = (float(side) for side in box)
    sides = (x1 - x0, y1 - y0)
    return {
        "image_id": photo,
        "category_id": int(label) + 1,
        "bbox": [x0, y0, *sides],
        "area": sides[0] * sides[1],
        **others,
    }


def _mean(values: np.ndarray) -> float | None:
    """Over what COCO could measure: it writes -1 elsewhere."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else None
