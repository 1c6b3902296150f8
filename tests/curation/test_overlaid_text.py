import numpy as np
import pytest
from PIL import Image, ImageDraw
from sklearn.metrics import roc_auc_score

from univert.core.errors import BadInputError
from univert.curation.overlaid_text import OVERLAYS, OverlayRater, default_fonts, overlay_features, write_over


def product(seed: int) -> Image.Image:
    """A few shapes on a pale ground."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (160, 120), tuple(rng.integers(215, 250, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y = rng.integers(20, 80, 2)
        shape = draw.ellipse if rng.integers(2) else draw.rectangle
        shape((x, y, x + rng.integers(15, 60), y + rng.integers(10, 40)), fill=tuple(rng.integers(0, 200, 3).tolist()))
    return image


PICTURES = [product(seed) for seed in range(18)]


def test_a_way_of_writing_that_it_never_saw_is_told() -> None:
    rng, (first, *_, last) = np.random.default_rng(9), default_fonts()
    seen = (write_over(each, way, first, rng) for way in ("centre", "banner") for each in PICTURES[:10])
    rater = OverlayRater.fit(overlay_features(PICTURES[:10]), overlay_features(seen))
    clean, written = PICTURES[10:], [write_over(each, "tiled", last, rng) for each in PICTURES[10:]]
    probabilities = rater.probabilities(overlay_features([*clean, *written]))
    assert roc_auc_score([0] * len(clean) + [1] * len(written), probabilities) > 0.9
    reasons = rater.reasons([*clean, *written])
    assert [reason is not None for reason in reasons] == (probabilities > rater.threshold).tolist()
    assert str(reasons[-1]).startswith("text or a watermark lies over it (probability ")


@pytest.mark.parametrize("way", OVERLAYS)
@pytest.mark.parametrize("size", [(240, 240), (60, 200), (20, 8)])
def test_every_way_writes_on_any_size_the_same_for_a_seed(way: str, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (90, 140, 120))
    once, again = (write_over(image, way, default_fonts()[0], np.random.default_rng(1)) for _ in range(2))
    assert once.size == size
    assert once.tobytes() == again.tobytes()
    assert once.tobytes() != image.tobytes()
    assert image.getcolors() == [(size[0] * size[1], (90, 140, 120))]


def test_features_do_not_depend_on_the_batch() -> None:
    together = overlay_features(PICTURES[:17])
    np.testing.assert_allclose(together[16:], overlay_features(PICTURES[16:17]), rtol=1e-3, atol=1e-4)
    assert overlay_features([]).shape == (0, together.shape[1])


def test_learning_writes_upon_copies() -> None:
    rater = OverlayRater.learn(PICTURES[:10])
    written = write_over(PICTURES[17], "banner", default_fonts()[0], np.random.default_rng(1))
    clean, dirty = rater.probabilities(overlay_features([PICTURES[17], written]))
    assert clean < 0.5 < dirty


def test_it_learns_from_pictures_of_which_some_are_written_upon() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.normal(size=(200, 8))
    pictures[:40, 0] += 4
    text = 4 * np.eye(8)[0]
    rater = OverlayRater.fit(pictures, np.concatenate([pictures + text] * 3))
    clean = rng.normal(size=(500, 8))
    out = rater.probabilities(np.concatenate([clean + text, clean]))
    assert np.mean(out[:500] > rater.threshold) > 0.9
    assert np.mean(out[500:] > rater.threshold) < 0.1


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(BadInputError, match="at least 10 pictures, got 3"):
        OverlayRater.learn(PICTURES[:3])
