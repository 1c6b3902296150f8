"""The vote of the nearest neighbours: weights that fall with distance, and what tells a sure vote from a guess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Int

FEATURES: Final = ("agreement", "nearest", "supporters", "second")
"""What confidence is read from; see `Votes.features`."""

NO_VOTE: Final = -1
"""The code of a neighbour without a label, or of no neighbour at all."""

FARTHEST: Final = 4.0
"""The largest squared distance between unit vectors."""

_SHARE_LIMIT: Final = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Votes:
    """The outcome of votes on one attribute.

    Attributes:
        winner: (Q,) code of the value that got most, or `NO_VOTE` where nobody voted.
        features: (Q, 4) log-odds of the winner's share of the vote; squared distance of its nearest supporter;
            logarithm of how many support it; squared distance of the second nearest supporter (of the farthest
            neighbour if there is one supporter alone).
        shares: (Q, K) share of the whole vote that the value of each neighbour got; 0 where it has no label.
    """

    winner: Int[np.ndarray, " Q"]
    features: Float[np.ndarray, "Q 4"]
    shares: Float[np.ndarray, "Q K"]


def vote(distances: Float[np.ndarray, "Q K"], codes: Int[np.ndarray, "Q K"], temperature: float) -> Votes:
    """Let the neighbours of each query vote with weight exp(-distance / temperature).

    Args:
        distances: squared Euclidean distances, nearest first; `FARTHEST` where there is no neighbour.
        codes: the neighbours' values as numbers from 0 on; `NO_VOTE` for no label: it does not vote.
        temperature: how fast weights fall; in units of squared distance.

    Example:
        >>> votes = vote(np.array([[0.1, 0.2, 0.3]]), np.array([[7, 5, 5]]), 1.0)
        >>> int(votes.winner[0]), round(float(votes.shares[0, 1]), 2)
        (5, 0.63)
    """
    voting = codes != NO_VOTE
    # Relative to the nearest, so that no temperature makes all weights vanish.
    relative = distances - distances[:, :1]
    weights = np.where(voting, np.exp(-np.minimum(relative / temperature, 500.0)), 0.0)
    total = weights.sum(axis=1, keepdims=True)
    same = (codes[:, :, None] == codes[:, None, :]) & voting[:, :, None]
    shares = np.einsum("qij,qj->qi", same, weights) / np.where(total > 0, total, 1.0)
    best = shares.argmax(axis=1)
    rows = np.arange(len(codes))
    supporters = same[rows, best]
    anybody = voting.any(axis=1)
    ordered = np.sort(np.where(supporters, distances, np.inf), axis=1)
    nearest = np.where(anybody, ordered[:, 0], FARTHEST)
    second = ordered[:, 1] if codes.shape[1] > 1 else np.full(len(codes), np.inf)
    second = np.where(np.isfinite(second), second, distances[:, -1])
    share = np.clip(shares[rows, best], _SHARE_LIMIT, 1 - _SHARE_LIMIT)
    features = np.stack(
        [
            np.log(share / (1 - share)),
            nearest,
            np.log(np.maximum(supporters.sum(axis=1), 1)),
            np.where(anybody, second, FARTHEST),
        ],
        axis=1,
    )
    return Votes(winner=np.where(anybody, codes[rows, best], NO_VOTE), features=features, shares=shares)


def confidence(features: Float[np.ndarray, "Q 4"], weights: Float[np.ndarray, " 5"]) -> Float[np.ndarray, " Q"]:
    """The probability that the winner is right: a logistic function of the vote's features.

    Args:
        features: as `Votes.features`.
        weights: the constant, then one for each of `FEATURES`.
    """
    score = weights[0] + features @ weights[1:]
    return np.asarray(1 / (1 + np.exp(-np.clip(score, -50, 50))))
