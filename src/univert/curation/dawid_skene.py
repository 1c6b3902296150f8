"""What is true, and how each rater errs, from their answers alone (Dawid and Skene 1979), for yes and no.

Written here since the package that has it loads pandas, which then doubles the start of every command that reads a
catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

MOST_ROUNDS = 200
CONVERGED = 1e-6
PSEUDO_ANSWERS = 0.01
"""Right and wrong answers that each rater is given beforehand, so that nobody counts as infallible."""


@dataclass(frozen=True, kw_only=True)
class DawidSkene:
    """The estimate.

    Attributes:
        yes: how probable it is for each of T questions that yes is true.
        accuracy: how often each of R raters is right.
    """

    yes: Float[np.ndarray, "T"]
    accuracy: Float[np.ndarray, "R"]


def dawid_skene(
    questions: Int64[np.ndarray, "A"],
    raters: Int64[np.ndarray, "A"],
    answers: Bool[np.ndarray, "A"],
    *,
    known: Float[np.ndarray, "T"],
) -> DawidSkene:
    """Estimate by expectation and maximisation, from each question's share of yes on.

    Each rater says yes with one probability where yes is true and with another where it is not.

    Args:
        questions: which question each answer is to, 0..T-1; each has at least one answer.
        raters: whose it is, 0..R-1; each has at least one.
        answers: whether it is yes.
        known: 1 or 0 for questions whose true answer is known, NaN for the others.

    Example:
        >>> import numpy as np
        >>> found = dawid_skene(
        ...     np.array([0, 0, 0, 1, 1, 1]),
        ...     np.array([0, 1, 2, 0, 1, 2]),
        ...     np.array([True, True, False, False, False, True]),
        ...     known=np.full(2, np.nan),
        ... )
        >>> found.yes.round(1), found.accuracy.round(1)
        (array([1., 0.]), array([1., 1., 0.]))
    """
    is_known, count = ~np.isnan(known), int(raters.max()) + 1
    yes = np.where(is_known, known, np.bincount(questions, answers) / np.bincount(questions))
    for _ in range(MOST_ROUNDS):
        before = yes
        truth = np.stack([1 - before, before])  # 2 x T
        prior = truth.mean(axis=1)
        weight = truth[:, questions]  # how much each answer tells of either truth, 2 x A
        said = np.stack([np.bincount(raters, one * answers, count) for one in weight])
        asked = np.stack([np.bincount(raters, one, count) for one in weight])
        says_yes = (said + PSEUDO_ANSWERS) / (asked + 2 * PSEUDO_ANSWERS)  # 2 x R
        likelihood = np.log(np.where(answers, says_yes[:, raters], 1 - says_yes[:, raters]))
        log_odds = np.bincount(questions, likelihood[1] - likelihood[0])
        with np.errstate(divide="ignore"):  # where all is known, a truth may have no share
            log_odds += np.log(prior[1]) - np.log(prior[0])
        yes = np.where(is_known, known, 1 / (1 + np.exp(-np.clip(log_odds, -700, 700))))
        if np.abs(yes - before).max() < CONVERGED:
            break
    return DawidSkene(yes=yes, accuracy=prior[0] * (1 - says_yes[0]) + prior[1] * says_yes[1])
