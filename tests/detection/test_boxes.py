from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import nms

from tests.detection.rooms import CONFIG
from univert.data.transforms import Preprocessing
from univert.detection.boxes import choose, in_photo, suppress
from univert.detection.ssd import SsdDetector


def random_boxes(count: int, seed: int = 0, side: float = 100) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, side, (count, 2, 2)), axis=1)
    return corners.reshape(count, 4).astype(np.float32)


def test_an_item_has_one_box_of_the_surest_vertical() -> None:
    """In the square that is seen of a photo twice as wide: a thing under two names, one within it, one beside it."""
    boxes = np.array([[8, 8, 40, 40], [8, 9, 40, 40], [10, 10, 24, 24], [36, 8, 70, 40]], np.float32)
    answer = boxes, np.array([0.5, 0.8, 0.7, 0.6], np.float32), np.array([0, 1, 1, 0])
    found, scores, labels = in_photo(answer, (128, 64), Preprocessing(image_size_px=64, fit="stretch"))
    assert found.tolist() == [[16, 9, 80, 40], [20, 10, 48, 24], [72, 8, 128, 40]]
    assert labels.tolist() == [1, 1, 0]
    assert scores.tolist() == pytest.approx([0.8, 0.7, 0.6])


@pytest.mark.parametrize("seed", range(4))
def test_suppression_is_that_of_torchvision(seed: int) -> None:
    boxes = np.concatenate([random_boxes(198, seed), np.zeros((2, 4), np.float32)])
    scores = np.random.default_rng(seed).permutation(200).astype(np.float32) / 200
    expected = nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.4)
    assert suppress(boxes, scores, 0.4).tolist() == expected.tolist()


def test_what_an_ssd_says_is_what_torchvision_makes_of_it() -> None:
    torch.manual_seed(1)
    model = SsdDetector(CONFIG).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        boxes, scores = model(images)
        found = model.outputs(images)
        model.ssd.score_thresh, model.ssd.detections_per_img = 0.05, 100
        side = CONFIG.image_size_px
        expected = model.ssd.postprocess_detections(found, [model.default_boxes] * 2, [(side, side)] * 2)
    for photo in range(2):
        ours = choose(boxes[photo].numpy(), scores[photo].numpy(), 0.05)
        theirs = [expected[photo][name].numpy() for name in ("boxes", "scores", "labels")]
        assert len(ours[0]) > 0
        np.testing.assert_allclose(ours[1], theirs[1], atol=1e-6)
        np.testing.assert_allclose(ours[0], theirs[0], atol=1e-3)
        assert (ours[2] == theirs[2] - 1).all()
