"""Preprocessing and augmentation: geometry against a naive oracle, and views that depend on nothing but their name."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from tests.data import pictures
from univert.core.errors import BadInputError
from univert.data.transforms import Augmentation, Preprocessing, _jitter, view_rng

RED, BLUE = (255, 0, 0), (0, 0, 255)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(pictures.noise(width, height))


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (64, 64)])
def test_fits_equal_the_naive_way(size: tuple[int, int]) -> None:
    """Pad or crop first, resize then: two steps, where ours is one."""
    image = Image.fromarray(pictures.smooth(*size))
    resample = Image.Resampling.BICUBIC
    side, low = max(size), min(size)
    padded = Image.new("RGB", (side, side), (128, 128, 128))
    padded.paste(image, ((side - size[0]) // 2, (side - size[1]) // 2))
    left, top = (size[0] - low) // 2, (size[1] - low) // 2
    naive = {
        "pad": padded.resize((32, 32), resample),
        "crop": image.crop((left, top, left + low, top + low)).resize((32, 32), resample),
        "stretch": image.resize((32, 32), resample),
    }
    for fit, expected in naive.items():
        preprocessing = Preprocessing(
            image_size_px=32,
            fit=fit,  # type: ignore[arg-type]
            background_rgb=(128, 128, 128),
        )
        difference = np.abs(preprocessing(image).astype(int) - np.asarray(expected))
        if fit == "pad":  # ours begins and ends on whole pixels: up to one step of the gradient apart
            difference = difference[7:25, 7:25]
        assert difference.max() <= (255 / 21 if fit == "pad" else 3)


@pytest.mark.parametrize(
    ("kind", "values", "named"),
    [
        (Preprocessing, {"image_size_px": 4}, "image_size_px"),
        (Preprocessing, {"fit": "squeeze"}, "fit"),
        (Preprocessing, {"background_rgb": (0, 0, 256)}, "background_rgb"),
        (Preprocessing, {"background_rgb": (0, 0)}, "background_rgb"),
        (Preprocessing, {"centre_share": 0}, "centre_share"),
        (Augmentation, {"min_scale": 0.0}, "min_scale"),
        (Augmentation, {"min_scale": 0.9, "max_scale": 0.8}, "max_scale"),
        (Augmentation, {"max_aspect": 0.5}, "max_aspect"),
        (Augmentation, {"flip_probability": 1.5}, "flip_probability"),
        (Augmentation, {"jitter": -0.1}, "jitter"),
    ],
)
def test_bad_values_are_refused(kind: Callable[..., object], values: dict[str, object], named: str) -> None:
    with pytest.raises(BadInputError, match=named):
        kind(**values)


augmentations = st.builds(
    Augmentation,
    min_scale=st.floats(0.05, 1),
    max_aspect=st.floats(1, 2),
    flip_probability=st.floats(0, 1),
    jitter=st.floats(0, 1),
)


@settings(max_examples=60, deadline=None)
@given(
    augmentation=augmentations,
    fit=st.sampled_from(["pad", "crop", "stretch"]),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    seed=st.integers(0, 2**40),
    image_id=st.text(max_size=8),
    view=st.integers(1, 1000),
)
def test_a_view_depends_on_seed_id_and_view_alone(
    augmentation: Augmentation, fit: str, size: tuple[int, int], seed: int, image_id: str, view: int
) -> None:
    preprocessing = Preprocessing(image_size_px=24, fit=fit)  # type: ignore[arg-type]
    image = noise(*size)
    before = image.tobytes()
    first = augmentation.apply(image, preprocessing, view_rng(seed, image_id, view))
    np.random.default_rng(1).random(100)
    augmentation.apply(noise(5, 5), preprocessing, view_rng(seed, image_id, view + 1))
    again = augmentation.apply(image, preprocessing, view_rng(seed, image_id, view))
    assert first.shape == (24, 24, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert image.tobytes() == before


def test_views_are_the_same_in_every_process_and_on_every_machine() -> None:
    drawn = view_rng(7, "smileys/grinning", 3).random(3).tolist()
    assert drawn == [0.9317514617476351, 0.5781181996767897, 0.7388880186789553]


@pytest.mark.parametrize("factors", [(1.2, 1.0, 1.0), (1.0, 0.7, 1.0), (1.0, 1.0, 1.3), (0.9, 1.1, 0.8)])
def test_colour_jitter_equals_its_steps_one_after_the_other(factors: tuple[float, float, float]) -> None:
    image = Image.fromarray((np.asarray(noise(40, 40)) // 4 + 90).astype(np.uint8))  # nothing is clipped on the way
    expected: Image.Image = image
    for enhance, factor in zip(
        (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
    ):
        expected = enhance(expected).enhance(factor)
    difference = np.abs(np.asarray(_jitter(image, *factors)).astype(int) - np.asarray(expected))
    assert difference.max() <= 3
