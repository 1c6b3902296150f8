"""How well a query describes each of the pictures that it returned, as a probability with reasons in plain words."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import special

from univert.core.config import from_plain, to_plain
from univert.core.errors import BadInputError, did_you_mean
from univert.core.files import write_atomic
from univert.models.text_tower import TextTower

FEATURES: Final = ("words", "title", "agreement")
"""words: cosine of the query in the text tower and the picture. title: cosine of the sentence embeddings of query and
title. agreement: mean cosine to the nearest other pictures of the query. The place in the results is none of them: how
much that says depends on the search engine.
"""

_NEIGHBOURS: Final = 5
_SAME_PICTURE: Final = 0.995
"""Cosine above which another picture is a copy of this one, which says nothing about either."""
_WORTH_SAYING: Final = 0.3
"""Least part of the log odds that is given as a reason."""


@dataclass(frozen=True, kw_only=True)
class ResultList:
    """One query and the pictures that it returned.

    Attributes:
        query: its text.
        vectors: (N, D) unit vectors of the pictures, by the model of the text tower.
        titles: title or alternative text of each; None where there is none.
    """

    query: str
    vectors: Float[np.ndarray, "N D"]
    titles: Sequence[str | None]

    def __post_init__(self) -> None:
        if len(self.titles) != len(self.vectors):
            raise BadInputError(
                f"query {self.query!r}: {len(self.vectors)} vectors and {len(self.titles)} titles; give one of each "
                "for a picture, None for no title"
            )


@dataclass(frozen=True, kw_only=True)
class MatchRating:
    """Whether the query describes the picture.

    Attributes:
        probability: that it does, 0 to 1.
        reasons: what speaks for it if it probably does, and what against it if not; the strongest first.
    """

    probability: float
    reasons: tuple[str, ...]


def match_features(tower: TextTower, lists: Sequence[ResultList]) -> Float[np.ndarray, "P 3"]:
    """The columns `FEATURES` of all pictures of all lists, one below the other; NaN where a feature is missing.

    Raises:
        BadInputError: vectors that are not of the tower's size.
    """
    for one in lists:
        if one.vectors.shape[1:] != (tower.size,):
            raise BadInputError(
                f"query {one.query!r}: vectors of shape {one.vectors.shape}, and the text tower's have {tower.size} "
                "numbers; embed the pictures with the model that the tower was learned for"
            )
    texts = sorted({text for one in lists for text in (one.query, *filter(None, one.titles))})
    place = {text: row for row, text in enumerate(texts)}
    sentences = np.asarray(tower.encoder(texts))
    queries = tower.embed([one.query for one in lists])
    parts = [np.full((0, len(FEATURES)), np.nan)]
    for one, query in zip(lists, queries, strict=True):
        found = np.full((len(one.vectors), len(FEATURES)), np.nan)
        found[:, 0] = one.vectors @ query
        titles = {row: place[title] for row, title in enumerate(one.titles) if title}
        found[list(titles), 1] = sentences[list(titles.values())] @ sentences[place[one.query]]
        found[:, 2] = _agreement(one.vectors)
        parts.append(found)
    return np.concatenate(parts)


@dataclass(frozen=True, kw_only=True)
class FeatureRegression:
    """Log odds of a right picture from some of the features: `bias` plus each weight times feature less mean."""

    bias: float
    weights: Mapping[str, float]
    means: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class PictureMatch:
    """Calibrated logistic regressions on `FEATURES`, one for every set of features that a picture may have.

    So a picture without a title, or alone, is judged by what there is, as well as that allows. Made by `fit`, from
    practice lists of a catalogue or from lists that people rated.

    Attributes:
        regressions: by the names of their features, joined with `+`.
    """

    regressions: Mapping[str, FeatureRegression]

    @classmethod
    def fit(
        cls, features: Float[np.ndarray, "P 3"], right: Bool[np.ndarray, " P"], *, use: Sequence[str] = FEATURES
    ) -> PictureMatch:
        """Fit to pictures of which is known whether their query describes them.

        Args:
            features: as from `match_features`; one that is always missing is left out.
            right: whether the query describes the picture.
            use: leave other features out.

        Raises:
            BadInputError: no right or no wrong ones, or an unknown feature.
        """
        if unknown := [name for name in use if name not in FEATURES]:
            raise BadInputError(f"use: unknown feature {unknown[0]!r}; {did_you_mean(unknown[0], FEATURES)}")
        if not 0 < np.count_nonzero(right) < len(right):
            raise BadInputError("a match is learned from right and wrong pictures, and all are of one kind; add others")
        there = np.isfinite(features)
        known = [column for column, name in enumerate(FEATURES) if name in use and there[:, column].any()]
        regressions = {}
        for count in range(len(known) + 1):
            for columns in map(list, itertools.combinations(known, count)):
                rows = there[:, columns].all(1)
                if 0 < np.count_nonzero(right[rows]) < np.count_nonzero(rows):
                    regressions[_key(columns)] = _regression(features[rows], right[rows], columns)
        return cls(regressions=regressions)

    def probabilities(self, features: Float[np.ndarray, "P 3"]) -> Float[np.ndarray, " P"]:
        """Of each picture, that its query describes it."""
        return self._judge(features)[0]

    def rate(self, tower: TextTower, lists: Sequence[ResultList]) -> list[MatchRating]:
        """Rate all pictures of all lists, one after the other.

        Raises:
            BadInputError: as `match_features`.
        """
        probabilities, parts = self._judge(match_features(tower, lists))
        pictures = ((one.query, title) for one in lists for title in one.titles)
        return [
            MatchRating(probability=probability, reasons=tuple(_reasons(query, title, part, right=probability >= 0.5)))
            for probability, part, (query, title) in zip(probabilities.tolist(), parts, pictures, strict=True)
        ]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_atomic(path, json.dumps(to_plain(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> PictureMatch:
        """Read what `save` wrote.

        Raises:
            BadInputError: it is not there, or damaged.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadInputError(f"{path} cannot be read: {error}; learn the match again") from None
        if not isinstance(values, Mapping):
            raise BadInputError(f"{path} is not a saved match; learn the match again")
        return from_plain(cls, values, where=str(path))

    def _judge(self, features: Float[np.ndarray, "P 3"]) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, "P 3"]]:
        """Probabilities, and what each feature adds to the log odds."""
        known = np.array([name in self.regressions for name in FEATURES])
        there = np.isfinite(features) & known
        bias, parts = np.zeros(len(features)), np.zeros(features.shape)
        for pattern in np.unique(there, axis=0):
            rows, columns = (there == pattern).all(1), np.flatnonzero(pattern)
            regression = self.regressions.get(_key(columns), self.regressions[""])
            bias[rows] = regression.bias
            for column in columns:
                weight, mean = (of.get(FEATURES[column], 0.0) for of in (regression.weights, regression.means))
                parts[rows, column] = weight * (features[rows, column] - mean)
        return special.expit(bias + parts.sum(1)), parts


def _key(columns: Sequence[int] | Int[np.ndarray, " K"]) -> str:
    return "+".join(FEATURES[column] for column in columns)


def _regression(
    features: Float[np.ndarray, "P 3"], right: Bool[np.ndarray, " P"], columns: Sequence[int]
) -> FeatureRegression:
    from sklearn.linear_model import LogisticRegression

    names, inputs = [FEATURES[column] for column in columns], features[:, columns]
    means, scales = inputs.mean(0), np.maximum(inputs.std(0), 1e-6)
    if not names:
        return FeatureRegression(bias=float(special.logit(right.mean())), weights={}, means={})
    fitted = LogisticRegression(max_iter=1000).fit((inputs - means) / scales, right)
    weights = (fitted.coef_[0] / scales).tolist()
    return FeatureRegression(
        bias=float(fitted.intercept_[0]),
        weights=dict(zip(names, weights, strict=True)),
        means=dict(zip(names, means.tolist(), strict=True)),
    )


def _agreement(vectors: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " N"]:
    """Mean cosine to the nearest other pictures that are no copies; NaN where there are none."""
    alike = np.asarray(vectors, np.float64) @ np.asarray(vectors, np.float64).T
    alike[alike > _SAME_PICTURE] = -np.inf  # the picture itself, and its copies
    nearest = np.sort(alike, axis=1)[:, ::-1][:, :_NEIGHBOURS]
    others = np.isfinite(nearest)
    total, count = np.where(others, nearest, 0).sum(1), others.sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _reasons(query: str, title: str | None, parts: Float[np.ndarray, " 3"], *, right: bool) -> Iterator[str]:
    for_it = (
        f"it looks like {query!r}", f"its title {title!r} fits {query!r}", "it is like the other pictures of the query"
    )  # fmt: skip
    against_it = (
        f"it does not look like {query!r}",
        f"its title says {title!r}, the query {query!r}",
        "it is unlike the other pictures of the query",
    )
    reasons, signed = (for_it, parts) if right else (against_it, -parts)
    for column in np.argsort(-signed, kind="stable").tolist():
        if signed[column] >= _WORTH_SAYING:
            yield reasons[column]
