"""Which vertical an image is likely to be of, as the untrained base network sees it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64

from univert.core.errors import BadInputError
from univert.data.samplers import balanced_sample, step_rng

FIT_IMAGES = 20_000
"""It is fitted on at most so many training images."""
FEATURE_SCALE = 10.0
"""Unit features are multiplied by it: logistic regression with unit penalty would otherwise be far too timid."""
LIKELY = 0.05
"""A vertical below this probability does not count."""


class VerticalPredictor:
    """Predicts the vertical of images by multinomial logistic regression on pooled features of unit length.

    Args:
        features: of training images, unit rows.
        verticals: the vertical of each, 0..count - 1.
        count: how many verticals there are.

    Raises:
        BadInputError: a vertical without images.
    """

    def __init__(self, features: Float[np.ndarray, "N F"], verticals: Int64[np.ndarray, "N"], *, count: int) -> None:
        from sklearn.linear_model import LogisticRegression

        self._count = count
        missing = sorted(set(range(count)) - set(np.unique(verticals).tolist()))
        if missing:
            raise BadInputError(f"predicting verticals needs images of the verticals numbered {missing}; add some")
        self._model = LogisticRegression(max_iter=300)
        if count > 1:
            self._model.fit(FEATURE_SCALE * features, verticals)

    @staticmethod
    def choose(
        positions: Int64[np.ndarray, "N"], verticals: Int64[np.ndarray, "N"], *, seed: int
    ) -> Int64[np.ndarray, "M"]:
        """Of some training images those to fit on: all, or a sample with as many of each vertical as can be."""
        return balanced_sample(positions, verticals, FIT_IMAGES, step_rng(seed, 5))

    def __call__(self, features: Float[np.ndarray, "N F"]) -> Float[np.ndarray, "N K"]:
        """The probability of each vertical for images with these unit features."""
        if self._count == 1 or not len(features):
            return np.ones((len(features), self._count), np.float32)
        probabilities: np.ndarray = self._model.predict_proba(FEATURE_SCALE * features)
        return probabilities.astype(np.float32)


def weights_of_predictions(probabilities: Float[np.ndarray, "N K"], confidence: float) -> Float[np.ndarray, "N K"]:
    """How much each vertical has to say about images whose vertical is predicted.

    Args:
        probabilities: from a `VerticalPredictor`.
        confidence: where the likeliest vertical reaches this probability, it alone counts; elsewhere all verticals
            count by their probability, except those below 5%.

    Returns:
        rows that sum to 1.
    """
    best = probabilities.max(axis=1, keepdims=True)
    kept = np.where(probabilities >= np.minimum(LIKELY, best), probabilities, 0)
    mixed = kept / kept.sum(axis=1, keepdims=True)
    likeliest = np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]
    return np.asarray(np.where(best >= confidence, likeliest, mixed), np.float32)
