from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from univert.core.errors import BadInputError
from univert.training.targets.alignment import unit
from univert.training.targets.vertical_prediction import FIT_IMAGES, VerticalPredictor, weights_of_predictions


def test_separable_features_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    centres = unit(rng.normal(size=(3, 8)))
    verticals = np.arange(60) % 3
    features = unit(centres[verticals] + 0.1 * rng.normal(size=(60, 8))).astype(np.float32)
    predict = VerticalPredictor(features[:30], verticals[:30], count=3)
    found = predict(features[30:])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(found.argmax(axis=1), verticals[30:])
    assert found.max(axis=1).mean() > 0.9
    middle = predict(unit(centres.mean(axis=0, keepdims=True)))
    assert middle.max() < found.max(axis=1).mean()
    assert predict(features[:0]).shape == (0, 3)


def test_one_vertical_alone_needs_no_fit_and_one_without_images_is_named() -> None:
    features = np.eye(4, dtype=np.float32)
    alone = VerticalPredictor(features, np.zeros(4, np.int64), count=1)
    np.testing.assert_array_equal(alone(features), np.ones((4, 1)))
    with pytest.raises(BadInputError, match=r"images of the verticals numbered \[1\]"):
        VerticalPredictor(np.eye(3), np.array([0, 2, 0]), count=3)


def test_it_is_fitted_on_a_sample_of_many_images() -> None:
    usable = np.arange(0, 3 * FIT_IMAGES, 2)
    verticals = (np.arange(len(usable)) < 9).astype(np.int64)
    chosen = VerticalPredictor.choose(usable, verticals, seed=1)
    assert len(chosen) == len(np.unique(chosen)) == FIT_IMAGES
    assert np.isin(chosen, usable).all()
    assert np.isin(usable[:9], chosen).all(), "a small vertical lost images to a large one"
    np.testing.assert_array_equal(chosen, VerticalPredictor.choose(usable, verticals, seed=1))


@given(st.integers(0, 1000), st.integers(1, 40), st.floats(0, 1), st.floats(0, 6))
def test_weights_sum_to_one_and_follow_the_probabilities(
    seed: int, count: int, confidence: float, spread: float
) -> None:
    logits = spread * np.random.default_rng(seed).normal(size=(7, count))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    found = weights_of_predictions(probabilities, confidence)
    best, sure = probabilities.argmax(axis=1), probabilities.max(axis=1) >= confidence
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(found[sure], np.eye(count)[best[sure]])
    for weights, odd in zip(found[~sure], probabilities[~sure], strict=True):
        kept = weights > 0
        np.testing.assert_allclose(weights[kept], odd[kept] / odd[kept].sum(), rtol=1e-5)
        assert kept[odd.argmax()]
        assert (odd[~kept] < 0.05).all()
