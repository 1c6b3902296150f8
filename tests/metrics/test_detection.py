from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from univert.core.errors import BadInputError
from univert.metrics.detection import LEAST_SCORE, Found, Truth, detection_figures

NONE = np.zeros((0, 4))
NAMES = ["chairs", "lamps", "never shown"]


def photos(seed: int, count: int = 12) -> tuple[list[Truth], list[Found]]:
    """Items, found a little beside their place, more or less sure of their name, some twice, some not at all."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(count):
        corners = rng.uniform(0, 300, (4, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(30, 150, (4, 2))], 1)
        labels = rng.integers(0, 2, 4)
        chosen = rng.integers(0, 4, 5)
        moved = boxes[chosen] + rng.normal(0, 6, (5, 4))
        scores = rng.dirichlet(np.ones(3), 5) * rng.uniform(0.3, 1, (5, 1))
        truth.append((boxes, labels, NONE))
        found.append((moved, scores))
    return truth, found


def naive_ap(truth: list[Truth], found: list[Found], label: int | None) -> float:
    """Average precision at 0.5 by its definition: precision at 101 recalls, each the best at that recall or above."""
    answers = [
        (score.sum() if label is None else score[label], photo, box)
        for photo, (boxes, scores) in enumerate(found)
        for box, score in zip(boxes, scores, strict=True)
        if label is None or score[label] > LEAST_SCORE
    ]
    taken = {photo: set[int]() for photo in range(len(truth))}
    right = []
    for _, photo, box in sorted(answers, key=lambda answer: -answer[0]):
        boxes, labels, _ = truth[photo]
        best, place = 0.5, None
        for number, (shown, name) in enumerate(zip(boxes, labels, strict=True)):
            shared = float(box_iou(torch.from_numpy(box[None]), torch.from_numpy(shown[None])))
            if (label is None or name == label) and number not in taken[photo] and shared >= best:
                best, place = shared, number
        right.append(place is not None)
        if place is not None:
            taken[photo].add(place)
    total = sum(int(((labels == label) | (label is None)).sum()) for _, labels, _ in truth)
    hits = np.cumsum(right)
    precisions, recalls = hits / np.arange(1, len(hits) + 1), hits / total
    return float(
        np.mean([max(precisions[recalls >= recall - 1e-12], default=0.0) for recall in np.linspace(0, 1, 101)])
    )


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_as_defined(seed: int) -> None:
    truth, found = photos(seed)
    figures = detection_figures(truth, found, NAMES)
    expected = [naive_ap(truth, found, label) for label in range(2)]
    assert list(figures.verticals) == NAMES[:2]
    assert list(figures.verticals.values()) == pytest.approx(expected, abs=1e-6)
    assert figures.map_50 == pytest.approx(np.mean(expected), abs=1e-6)
    assert figures.any_vertical_ap_50 == pytest.approx(naive_ap(truth, found, None), abs=1e-6)
    assert (figures.photos, figures.items) == (12, 48)


def test_all_found_none_found_and_nothing_to_find() -> None:
    truth, _ = photos(0)
    perfect = detection_figures(truth, [(boxes, 0.9 * np.eye(3)[labels]) for boxes, labels, _ in truth], NAMES)
    assert (perfect.map, perfect.map_50, perfect.any_vertical_ap_50) == (1.0, 1.0, 1.0)
    assert set(perfect.recall_50.values()) <= {1.0, None}
    nothing: Found = (np.zeros((0, 4)), np.zeros((0, 3)))
    assert detection_figures(truth, [nothing] * 12, NAMES).map_50 == 0.0
    empty: Truth = (NONE, np.zeros(0, np.int64), NONE)
    assert detection_figures([empty], [nothing], NAMES).map_50 is None
    with pytest.raises(BadInputError, match="got 12 and 1"):
        detection_figures(truth, [nothing], NAMES)


def test_small_items_are_counted_among_the_small() -> None:
    boxes = np.array([[0, 0, 20, 20], [50, 50, 110, 110.0]])
    found: Found = (boxes[1:], np.ones((1, 1)))
    figures = detection_figures([(boxes, np.zeros(2, np.int64), NONE)], [found], ["chairs"])
    assert figures.recall_50 == {"small": 0.0, "medium": 1.0, "large": None}


def test_the_best_score_parts_right_from_wrong() -> None:
    truth, _ = photos(1)
    wrong = np.array([[400.0, 400, 450, 450]])
    found = [
        (np.concatenate([boxes, wrong]), np.concatenate([0.8 * np.eye(3)[labels], [[0.1, 0.1, 0.1]]]))
        for boxes, labels, _ in truth
    ]
    assert 0.3 < detection_figures(truth, found, NAMES).best_score <= 0.8


def test_the_best_score_counts_recall_twice() -> None:
    """All four found among six mistakes (F1 0.57, F2 0.77) beats two found without any (F1 0.67, F2 0.56)."""
    boxes = np.array([[100.0 * place, 0, 100 * place + 50, 50] for place in range(10)])
    scores = np.repeat([0.9, 0.3, 0.4], [2, 2, 6])[:, None]
    truth = (boxes[:4], np.zeros(4, np.int64), np.zeros((0, 4)))
    assert detection_figures([truth], [(boxes, scores)], ["discs"]).best_score == 0.3


def test_what_is_ignored_is_neither_missed_nor_a_mistake() -> None:
    boxes, hidden = np.array([[0, 0, 50, 50.0]]), np.array([[100, 100, 160, 160.0]])
    found: Found = (np.concatenate([hidden, boxes]), np.array([[0, 0.9, 0], [0.8, 0, 0]]))
    labels = np.zeros(1, np.int64)
    for ignored, precision in ((hidden, 1.0), (NONE, 0.5)):
        figures = detection_figures([(boxes, labels, ignored)], [found], NAMES)
        assert figures.any_vertical_ap_50 == pytest.approx(precision, abs=1e-6)
        assert (figures.map_50, figures.items) == (1.0, 1)
