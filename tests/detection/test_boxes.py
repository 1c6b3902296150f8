from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.ops import nms

from tests.detection.rooms import CONFIG
from univert.data.transforms import Preprocessing
from univert.detection.boxes import MAX_OVERLAP, in_photo, one_label, suppress
from univert.detection.ssd import SsdDetector


def random_boxes(count: int, seed: int = 0, side: float = 100) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, side, (count, 2, 2)), axis=1)
    return corners.reshape(count, 4).astype(np.float32)


def test_an_item_has_one_box_of_the_surest_vertical() -> None:
    """In the square that is seen of a photo twice as wide: a thing torn between two verticals, the same a little
    beside it, one within it, one beside it, one outside the photo, one that is hardly sure."""
    boxes = [[8, 8, 40, 40], [8, 9, 40, 40], [10, 10, 24, 24], [36, 8, 70, 40], [70, 8, 90, 40], [0, 50, 9, 60]]
    scores = [[0.4, 0.5], [0.0, 0.8], [0.0, 0.7], [0.6, 0.0], [0.9, 0.0], [0.05, 0.04]]
    answer = np.array(boxes, np.float32), np.array(scores, np.float32)
    found, sure = in_photo(answer, (128, 64), Preprocessing(image_size_px=64, fit="stretch"), 0.1)
    assert found.tolist() == [[16, 8, 80, 40], [20, 10, 48, 24], [72, 8, 128, 40]]
    assert sure.tolist() == pytest.approx(np.array([[0.4, 0.5], [0.0, 0.7], [0.6, 0.0]]))


def test_labels_that_have_no_name_are_left_out() -> None:
    boxes, scores = one_label(random_boxes(3), np.array([0.5, 0.6, 0.7], np.float32), np.array([1, 2, -1]), 2)
    assert boxes.tolist() == random_boxes(3)[:1].tolist()
    assert scores.tolist() == [[0, 0.5]]


@pytest.mark.parametrize("seed", range(4))
def test_suppression_is_that_of_torchvision(seed: int) -> None:
    boxes = np.concatenate([random_boxes(198, seed), np.zeros((2, 4), np.float32)])
    scores = np.random.default_rng(seed).permutation(200).astype(np.float32) / 200
    expected = nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.4)
    assert suppress(boxes, scores, 0.4).tolist() == expected.tolist()


def test_of_one_vertical_an_ssd_says_what_torchvision_makes_of_it() -> None:
    torch.manual_seed(1)
    config = replace(CONFIG, verticals=("things",))
    model, side = SsdDetector(config).eval(), config.image_size_px
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    model.ssd.score_thresh, model.ssd.detections_per_img, model.ssd.nms_thresh = 0.05, 100, MAX_OVERLAP
    with torch.inference_mode():
        found = model.outputs(images)
        expected = model.ssd.postprocess_detections(found, [model.default_boxes] * 2, [(side, side)] * 2)
    for answer, theirs in zip(model.answers(images), expected, strict=True):
        boxes, scores = in_photo(answer, (side, side), model.preprocessing, 0.05)
        assert len(boxes) > 0
        np.testing.assert_allclose(scores[:, 0], theirs["scores"], atol=1e-6)
        np.testing.assert_allclose(boxes, theirs["boxes"], atol=1e-3)
