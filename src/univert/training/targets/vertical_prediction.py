"""The router: which vertical an image is likely to be of, from the untrained base network's features."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64

from univert.core.errors import BadInputError
from univert.data.samplers import balanced_sample, step_rng

FIT_IMAGES = 20_000
"""It is fitted on at most so many training images."""
FEATURE_SCALE = 10.0
"""Unit features are multiplied by it: logistic regression with unit penalty would otherwise be far too timid."""


class Router:
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
        present = np.unique(verticals)
        if len(present) < count:
            missing = sorted(set(range(count)) - set(present.tolist()))
            raise BadInputError(f"the router has no images of the verticals numbered {missing}; add some")
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


def trusted(probabilities: Float[np.ndarray, "N K"], confidence: float, *, weighted: bool) -> Float[np.ndarray, "N K"]:
    """How much each vertical has to say about images whose vertical is predicted.

    Args:
        probabilities: from a router.
        confidence: where the likeliest vertical reaches this probability, it alone counts.
        weighted: below it, all verticals count by their probability (those under 5% do not); otherwise the image
            counts for nothing: a row of zeros.

    Returns:
        rows that sum to 1 or are zero.

    Raises:
        BadInputError: a confidence outside [0, 1].
    """
    if not 0 <= confidence <= 1:
        raise BadInputError(f"confidence must lie in [0, 1], got {confidence}; 0.9 is careful")
    best = probabilities.argmax(axis=1)
    sure = probabilities.max(axis=1) >= confidence
    alone = np.zeros_like(probabilities)
    alone[np.arange(len(best)), best] = 1
    if weighted:
        likely = np.minimum(0.05, probabilities.max(axis=1, keepdims=True))
        kept = np.where(probabilities >= likely, probabilities, 0)
        mixed = kept / kept.sum(axis=1, keepdims=True)
    else:
        mixed = np.zeros_like(probabilities)
    return np.where(sure[:, None], alone, mixed).astype(np.float32)
