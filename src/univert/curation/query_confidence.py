"""How sure it is that the vertical of a query is the right one."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Float

ENGLISH_SHARE: Final = 2 / 3
"""A query is taken for English where so many of its words are."""
LEAST_CONFIDENCE: Final = 0.5
"""No vertical is given below it, however low the precision asked for."""


class QueryConfidence:
    """Confidence from clues, and how often confidence was right on products left out.

    Queries that are English, whose meaning is heard, have a curve of their own.

    Args:
        clues: what `QueryReader.judge` returns; [N, F].
        right: whether the vertical it chose was the right one; [N].
        weights: of each, in which off-topic queries have their share; [N].
    """

    def __init__(self, clues: Float[np.ndarray, "N F"], right: np.ndarray, weights: Float[np.ndarray, "N"]) -> None:
        english = _is_english(clues)
        self._curves = {
            part: _Curve.fit(clues[english == part], right[english == part], weights[english == part])
            for part in (True, False)
            if len(set(right[english == part].tolist())) == 2
        }

    def confidence(self, clues: Float[np.ndarray, "N F"]) -> Float[np.ndarray, "N"]:
        """The chance that the vertical chosen is right; 0 where no such query was seen."""
        sure = np.zeros(len(clues))
        for part, curve in self._curves.items():
            if (rows := _is_english(clues) == part).any():
                sure[rows] = curve.model.predict_proba(clues[rows])[:, 1]
        return sure

    def thresholds(self, clues: Float[np.ndarray, "N F"], precision: float) -> Float[np.ndarray, "N"]:
        """The confidence from which on a vertical is given, for each query."""
        least = {part: curve.threshold(precision) for part, curve in self._curves.items()}
        return np.array([least.get(bool(part), 1.0) for part in _is_english(clues)])


class _Curve(NamedTuple):
    model: Any
    confidences: Float[np.ndarray, "N"]
    precisions: Float[np.ndarray, "N"]

    @classmethod
    def fit(cls, clues: Float[np.ndarray, "N F"], right: np.ndarray, weights: Float[np.ndarray, "N"]) -> _Curve:
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=10, max_iter=5000).fit(clues, right, sample_weight=weights)
        confidence = model.predict_proba(clues)[:, 1]
        order = np.argsort(-confidence, kind="stable")
        total = np.cumsum(weights[order])
        return cls(model, confidence[order], np.cumsum((weights * right)[order]) / total)

    def threshold(self, precision: float) -> float:
        """The lowest confidence that keeps `precision`; not one at which a vertical is rather wrong than right."""
        good = np.flatnonzero((self.precisions >= precision) & (self.confidences >= LEAST_CONFIDENCE))
        return float(self.confidences[good[-1]]) if len(good) else 1.0


def _is_english(clues: Float[np.ndarray, "N F"]) -> np.ndarray:
    return np.asarray(clues[:, 0] >= ENGLISH_SHARE)
