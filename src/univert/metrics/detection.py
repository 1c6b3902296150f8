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
Found = tuple[Float[np.ndarray, "M 4"], Float[np.ndarray, "M"], Int[np.ndarray, "M"]]
"""What was found in it: boxes, scores, numbers of verticals."""

SIZES_PX = {"small": (0, 32), "medium": (32, 96), "large": (96, 100_000)}
"""COCO's sizes of items: the square root of the box's area, from and to."""
MAX_FOUND = 100


@dataclass(frozen=True, kw_only=True)
class DetectionFigures:
    """How well items are found in some photos. Average precisions and recalls lie in 0..1; None where there is no item.

    Attributes:
        photos: how many.
        items: how many they show.
        map: mean over the verticals of the average precision, itself the mean over overlaps of 0.50, 0.55, ... 0.95.
        map_50: the same at an overlap (intersection over union) of 0.5 alone.
        any_vertical_ap_50: average precision at 0.5 if verticals do not matter.
        recall_50: share of the items of each size (`SIZES_PX`) that are found at 0.5 among 100 answers a photo, mean
            over the verticals.
        verticals: average precision at 0.5 of each vertical that is shown.
        best_score: the least score at which precision and recall at 0.5 balance best (F1).
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
    evaluated = _evaluate(truth, found, len(verticals)).eval
    precision, recall = np.asarray(evaluated["precision"])[..., 0, -1], np.asarray(evaluated["recall"])[0, :, 1:, -1]
    of_vertical = {
        name: float(precision[0, :, number].mean())
        for number, name in enumerate(verticals)
        if precision[0, 0, number] > -1
    }
    anything = _evaluate(truth, found, len(verticals), by_vertical=False, overlaps=(0.5,)).eval["precision"]
    return DetectionFigures(
        photos=len(truth),
        items=sum(len(boxes) for boxes, *_ in truth),
        map=_mean(precision),
        map_50=_mean(precision[0]),
        any_vertical_ap_50=_mean(np.asarray(anything)[0, :, 0, 0, -1]),
        recall_50={name: _mean(recall[:, place]) for place, name in enumerate(SIZES_PX)},
        verticals=of_vertical,
        best_score=_best_score(truth, found, len(verticals)),
    )


def _evaluate(
    truth: Sequence[Truth],
    found: Sequence[Found],
    count: int,
    *,
    by_vertical: bool = True,
    overlaps: Sequence[float] | None = None,
) -> Any:
    """COCO's evaluation, done: `precision` by overlap, recall, vertical, size and most answers, `recall` the same."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise BadInputError("measuring detection needs faster-coco-eval: pip install 'univert[detect]'") from None
    images = [{"id": photo, "width": 1, "height": 1} for photo in range(1, len(truth) + 1)]
    categories = [{"id": number, "name": str(number)} for number in range(1, count + 1)]
    shown = [
        _annotation(photo, box, label)
        for photo, (boxes, labels, _) in enumerate(truth, start=1)
        for box, label in zip(boxes, labels, strict=True)
    ]
    shown += [
        {**_annotation(photo, box, label), "iscrowd": 1}
        for photo, (_, _, ignored) in enumerate(truth, start=1)
        for box in ignored
        for label in range(count)
    ]
    answers = [
        {**_annotation(photo, box, label), "score": float(score)}
        for photo, entry in enumerate(found, start=1)
        for box, score, label in zip(*entry, strict=True)
    ]
    coco, coco_found = (
        COCO({"images": images, "categories": categories, "annotations": _numbered(annotations)})
        for annotations in (shown, answers)
    )
    ranges = {name: [low**2, high**2] for name, (low, high) in SIZES_PX.items()}
    evaluation = COCOeval_faster(coco, coco_found, "bbox", ranges=ranges, print_function=lambda *_: None)
    evaluation.params.maxDets = [MAX_FOUND]
    evaluation.params.useCats = int(by_vertical)
    if overlaps is not None:
        evaluation.params.iouThrs = np.array(overlaps)
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def _annotation(photo: int, box: np.ndarray, label: int) -> dict[str, Any]:
    x0, y0, x1, y1 = (float(side) for side in box)
    sides = (x1 - x0, y1 - y0)
    bbox = [x0, y0, *sides]
    return {"image_id": photo, "category_id": int(label) + 1, "bbox": bbox, "area": sides[0] * sides[1], "iscrowd": 0}


def _numbered(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"id": number, **one} for number, one in enumerate(annotations, start=1)]


def _mean(values: np.ndarray) -> float | None:
    """Over what COCO could measure: it writes -1 elsewhere."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else None


def _best_score(truth: Sequence[Truth], found: Sequence[Found], count: int) -> float:
    matched = _evaluate(truth, found, count, overlaps=(0.5,)).eval["matched"]
    right = {int(pair.split("_")[0]) for pair in matched}
    scores = np.concatenate([np.empty(0), *(one[1] for one in found)])
    if not right:
        return 0.5
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum([place + 1 in right for place in order.tolist()])
    balance = 2 * hits / (np.arange(1, len(hits) + 1) + sum(len(boxes) for boxes, *_ in truth))
    return math.floor(100 * float(scores[order[int(balance.argmax())]])) / 100
