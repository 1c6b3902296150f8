"""Fitting how votes are read, and measuring how well that does.

1. The temperature of the vote maximises the likelihood of the right values (where they are among the voters).
2. Confidence is a logistic function of the vote's features (Platt 1999), fitted to whether the winner is right. It has
   five numbers; isotonic regression, which has as many as there are steps, was no better calibrated on emoji.
3. The threshold is the lowest confidence above which the share of right answers reaches the stated precision: judged by
   the lower end of its interval (Wilson 1927), by the mean confidence, and on 30 answers or more, so that it holds on
   other images as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Float, Int

from univert.identity.vote import NO_VOTE, AttributeCalibration, confidence, vote

_LEAST_KNOWN: Final = 30
"""Fewer answers say too little about their precision to state it."""
_ASSURANCE: Final = 0.8
"""Chance that the stated precision is reached on other images."""
_SURPRISE: Final = 0.02
"""Probability kept for values with no votes, so that one label error does not decide the temperature."""
_BINS: Final = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class Questions:
    """The votes on one attribute in one situation.

    Attributes:
        distances: (Q, K) of the neighbours that may answer, nearest first, `FARTHEST` where there are no more.
        codes: (Q, K) their values as numbers, `NO_VOTE` for none.
        truth: (Q,) the right values.
    """

    distances: Float[np.ndarray, "Q K"]
    codes: Int[np.ndarray, "Q K"]
    truth: Int[np.ndarray, " Q"]

    def __len__(self) -> int:
        return len(self.truth)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample(Questions):
    """Questions of several situations together, weighted as they will occur.

    Attributes:
        weights: (Q,) how much each counts; 1 in total.
        situation: (Q,) position in `situations`.
        situations: their names.
    """

    weights: Float[np.ndarray, " Q"]
    situation: Int[np.ndarray, " Q"]
    situations: tuple[str, ...]

    @classmethod
    def of(cls, questions: Mapping[str, Questions], shares: Mapping[str, float]) -> Sample:
        """Join the situations of one attribute; `shares` says how much of what will be asked is in each."""
        there = {name: asked for name, asked in questions.items() if len(asked)}
        parts = list(there.values()) or list(questions.values())
        counts = [len(part) for part in there.values()]
        weights = np.repeat([shares[name] / len(part) for name, part in there.items()], counts)
        return cls(
            distances=np.concatenate([part.distances for part in parts]),
            codes=np.concatenate([part.codes for part in parts]),
            truth=np.concatenate([part.truth for part in parts]),
            weights=weights / weights.sum() if len(weights) else weights,
            situation=np.repeat(np.arange(len(counts)), counts),
            situations=tuple(there),
        )


def fit(sample: Sample, *, precision: float) -> AttributeCalibration:
    """Temperature, confidence and threshold of one attribute; the module's text says how."""
    temperature = fit_temperature(sample)
    votes = vote(sample.distances, sample.codes, temperature)
    right = votes.winner == sample.truth
    weights = fit_confidence(votes.features, right, sample.weights)
    sure = confidence(votes.features, np.array(weights))
    return AttributeCalibration(
        temperature=temperature,
        weights=weights,
        precision=precision,
        threshold=fit_threshold(sure, right, sample.weights, precision=precision),
    )


def fit_temperature(sample: Sample) -> float:
    """The temperature under which the right values are likeliest, among queries that they voted for at all."""
    from scipy.optimize import minimize_scalar

    supports = (sample.codes == sample.truth[:, None]) & (sample.codes != NO_VOTE)
    useful = supports.any(axis=1) & (sample.weights > 0)
    if not useful.any():
        return 0.1
    distances, codes = sample.distances[useful], sample.codes[useful]
    rows, first = np.arange(useful.sum()), supports[useful].argmax(axis=1)

    def surprise(log_temperature: float) -> float:
        shares = vote(distances, codes, float(np.exp(log_temperature))).shares[rows, first]
        likelihood = (1 - _SURPRISE) * shares + _SURPRISE / codes.shape[1]
        return -float(sample.weights[useful] @ np.log(likelihood))

    # Models differ in how widely they spread their vectors.
    scale = float(np.median(distances[codes != NO_VOTE])) + 1e-9
    bounds = (np.log(scale / 1000), np.log(scale * 10))
    found = minimize_scalar(surprise, bounds=bounds, method="bounded")
    return float(np.exp(found.x))


def fit_confidence(
    features: Float[np.ndarray, "Q F"], right: Bool[np.ndarray, " Q"], weights: Float[np.ndarray, " Q"]
) -> tuple[float, ...]:
    """The constant and the weights of the features, of the logistic function that tells right winners from wrong."""
    from sklearn.linear_model import LogisticRegression

    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    if right.all() or not right.any():
        # One example of the other kind, so that certainty stays short of being absolute.
        share = (right.sum() + (0 if right.all() else 1)) / (len(right) + 1)
        return (float(np.log(share / (1 - share))), *[0.0] * features.shape[1])
    model = LogisticRegression(C=1.0, max_iter=1000)
    model.fit((features - centre) / spread, right, sample_weight=weights * len(weights))
    slopes = model.coef_[0] / spread
    return (float(model.intercept_[0] - slopes @ centre), *map(float, slopes))


def fit_similarity(sample: Sample) -> tuple[float, float] | None:
    """Constant and slope of the logistic function of distance that tells neighbours with the right value from others.

    None where nearer neighbours are not likelier to have it.
    """
    voting = sample.codes != NO_VOTE
    right = (sample.codes == sample.truth[:, None])[voting]
    weights = np.broadcast_to(sample.weights[:, None], voting.shape)[voting]
    constant, slope = fit_confidence(sample.distances[voting][:, None], right, weights / weights.sum())
    return (constant, slope) if slope < 0 else None


def fit_threshold(
    sure: Float[np.ndarray, " Q"], right: Bool[np.ndarray, " Q"], weights: Float[np.ndarray, " Q"], *, precision: float
) -> float | None:
    """The lowest confidence above which answers are right often enough; None if there is none.

    The lower end of a one-sided 80% interval must reach `precision`, and so must the mean confidence.
    """
    counts = weights > 0
    sure, right, weights = sure[counts], right[counts], weights[counts]
    order = np.argsort(-sure, kind="stable")
    weight = np.cumsum(weights[order])
    share = np.cumsum((weights * right)[order]) / weight
    stated = np.cumsum((weights * sure)[order]) / weight
    # As many equal weights would say as much.
    count = weight**2 / np.cumsum(weights[order] ** 2)
    z = NormalDist().inv_cdf(_ASSURANCE)
    middle = share + z**2 / (2 * count)
    low = (middle - z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))) / (1 + z**2 / count)
    cut_here = np.append(np.diff(sure[order]) < 0, True)
    enough = np.flatnonzero(
        (np.minimum(low, stated) >= precision) & cut_here & (np.arange(1, len(order) + 1) >= _LEAST_KNOWN)
    )
    return float(sure[order][enough[-1]]) if len(enough) else None


def measure(sample: Sample, calibration: AttributeCalibration) -> dict[str, Any]:
    """How well a calibration does on a sample: reliability, precision and coverage, in all and in each situation."""
    votes = vote(sample.distances, sample.codes, calibration.temperature)
    sure = confidence(votes.features, np.array(calibration.weights))
    right = votes.winner == sample.truth
    known = np.zeros(len(sample), bool) if calibration.threshold is None else sure >= calibration.threshold
    known &= votes.winner != NO_VOTE
    each = {
        name: _figures(right[here], known[here], np.ones(int(here.sum())))
        for number, name in enumerate(sample.situations)
        if (here := sample.situation == number).any()
    }
    return {
        **_figures(right, known, sample.weights),
        "expected_calibration_error": calibration_error(sure, right, sample.weights),
        "situations": each,
    }


def calibration_error(
    sure: Float[np.ndarray, " Q"], right: Bool[np.ndarray, " Q"], weights: Float[np.ndarray, " Q"]
) -> float:
    """Expected calibration error: mean distance of confidence from the share right, over bins of equal weight."""
    order = np.argsort(sure, kind="stable")
    place = np.cumsum(weights[order]) - weights[order] / 2
    bins = np.minimum((place / weights.sum() * _BINS).astype(int), _BINS - 1)
    gap = np.bincount(bins, ((sure - right) * weights)[order], minlength=_BINS)
    return float(np.abs(gap).sum() / weights.sum())


def _figures(right: Bool[np.ndarray, " Q"], known: Bool[np.ndarray, " Q"], weights: np.ndarray) -> dict[str, Any]:
    called = float(weights[known].sum())
    return {
        "queries": len(right),
        "right": float(np.average(right, weights=weights)),
        "coverage": called / float(weights.sum()),
        "precision": float((weights * right)[known].sum()) / called if called else None,
    }
