"""What a photo shows, by the vote of its nearest neighbours: vertical, brand, style, product, each with a confidence.

Votes weigh less with distance. A calibration says what tells a sure vote from a guess.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Int

from univert.core.config import from_plain
from univert.core.errors import BadInputError
from univert.core.files import write_atomic
from univert.search.query import Hit

ATTRIBUTES: Final = ("vertical", "brand", "style", "product")
CALIBRATION_FILE: Final = "calibration.json"
FORMAT: Final = 1

FEATURES: Final = ("agreement", "nearest", "supporters", "second")
"""What confidence is read from; see `Votes.features`."""

NO_VOTE: Final = -1
"""The code of a neighbour without a label, or of no neighbour at all."""

FARTHEST: Final = 4.0
"""The largest squared distance between unit vectors."""

_SHARE_LIMIT: Final = 0.01

_log = logging.getLogger(__name__)


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


@dataclass(frozen=True, kw_only=True, slots=True)
class AttributeAnswer:
    """What one attribute is.

    Attributes:
        value: the neighbours' choice; None if none of them has this attribute.
        confidence: calibrated probability that the value is right.
        known: whether that reaches `known_threshold`; if not, take it as unknown.
        known_precision: share of right answers, among those called known, that the calibration was asked for and
            fitted to; None where this attribute could not be calibrated.
        known_threshold: the confidence from which on an answer is called known; None where none ever is.
    """

    value: str | None
    confidence: float
    known: bool
    known_precision: float | None = None
    known_threshold: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """A neighbour that spoke for the answer: `agrees` are the attributes whose value is the answer's."""

    id: str
    distance: float
    agrees: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentityAnswer:
    """What a photo shows, and the neighbours that agree with any of it, nearest first."""

    vertical: AttributeAnswer
    brand: AttributeAnswer
    style: AttributeAnswer
    product: AttributeAnswer
    evidence: tuple[Evidence, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        values = dataclasses.asdict(self)
        values["evidence"] = [{**item, "agrees": list(item["agrees"])} for item in values["evidence"]]
        return values


@dataclass(frozen=True, kw_only=True, slots=True)
class AttributeCalibration:
    """How votes on one attribute are read.

    Attributes:
        temperature: of the vote; see `univert.identity.vote.vote`.
        weights: of the confidence: the constant and one for each of `univert.identity.vote.FEATURES`.
        precision: share of right answers, among those called known, that was asked for.
        threshold: confidence from which on an answer is called known; None where nothing reaches that precision.
    """

    temperature: float
    weights: tuple[float, ...]
    precision: float
    threshold: float | None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.temperature) and self.temperature > 0):
            raise BadInputError(f"temperature must be positive, got {self.temperature}")
        if len(self.weights) != 1 + len(FEATURES) or not np.isfinite(self.weights).all():
            raise BadInputError(f"weights must be {1 + len(FEATURES)} finite numbers, got {self.weights}")
        if not 0 < self.precision < 1:  # every answer states it
            raise BadInputError(f"precision must lie between 0 and 1, got {self.precision}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How the neighbours of a model's queries are turned into an identity.

    Attributes:
        model_fingerprint: the model that it was measured with; distances of another mean something else.
        engine: the kind of engine that made the queries.
        neighbours: how many vote.
        attributes: those that could be calibrated; the others are never known.
        similarity_weights: constant and slope of `similarity`; None where it could not be fitted.
        report: how well it did on images that it was not fitted on; see `univert.identity.calibration`.
    """

    model_fingerprint: str
    engine: str
    neighbours: int
    attributes: Mapping[str, AttributeCalibration]
    similarity_weights: tuple[float, float] | None = None
    report: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def similarity(self, distance: float) -> float | None:
        """The probability that an image at this squared distance shows the same kind of thing as the query.

        The kind is the style, or the vertical where too few images have a style.
        """
        if self.similarity_weights is None:
            return None
        constant, slope = self.similarity_weights
        return float(1 / (1 + np.exp(-np.clip(constant + slope * distance, -50, 50))))

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        values = {"format": FORMAT, **dataclasses.asdict(self)}
        write_atomic(path, json.dumps(values, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what `save` wrote; raises BadInputError if there is no such file, or it is not a calibration."""
        again = "make one with: univert calibrate MODEL INDEX CATALOGUE"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BadInputError(f"{path}: no such calibration; {again}") from None
        except (OSError, ValueError) as error:
            raise BadInputError(f"{path} cannot be read: {error}; {again}") from None
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise BadInputError(f"{path} is not a calibration of format {FORMAT}; {again}")
        return from_plain(cls, values, where=str(path))


def vote(
    distances: Float[np.ndarray, "Q K"], codes: Int[np.ndarray, "Q K"], temperature: float | Float[np.ndarray, "Q 1"]
) -> Votes:
    """Let the neighbours of each query vote with weight exp(-distance / temperature).

    Args:
        distances: squared Euclidean distances, nearest first; `FARTHEST` where there is no neighbour.
        codes: the neighbours' values as numbers from 0 on; `NO_VOTE` for no label: it does not vote.
        temperature: how fast weights fall; in units of squared distance. One for all, or one for each query.

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


def confidence(features: Float[np.ndarray, "Q 4"], weights: Float[np.ndarray, "*Q 5"]) -> Float[np.ndarray, " Q"]:
    """The probability that the winner is right: a logistic function of the vote's features.

    The weights are the constant, then one for each of `FEATURES`; the same for all, or a row for each.
    """
    score = weights[..., 0] + np.vecdot(features, weights[..., 1:])
    return np.asarray(1 / (1 + np.exp(-np.clip(score, -50, 50))))


def find_calibration(
    index: str | Path, model: str | Path, model_fingerprint: str, *, path: Path | None = None
) -> Calibration | None:
    """The calibration that belongs to a model: at `path`, else beside the index, else in the model's folder.

    Args:
        index: the index, a folder or an address in an object store.
        model: the model's folder.
        model_fingerprint: of the model that embeds the queries.
        path: where it is; None looks in both places, and passes over one of another model with a warning.

    Raises:
        BadInputError: what is at `path` is missing, damaged, or of another model.
    """
    if path is not None:
        found = Calibration.load(path)
        if found.model_fingerprint != model_fingerprint:
            raise BadInputError(_of_another(path, found, model_fingerprint))
        return found
    for place in calibration_places(index, model):
        if not place.is_file():
            continue
        found = Calibration.load(place)
        if found.model_fingerprint == model_fingerprint:
            return found
        _log.warning(_of_another(place, found, model_fingerprint))
    return None


def calibration_places(index: str | Path, model: str | Path) -> list[Path]:
    """Where the calibration of an index may lie, best first: in its folder, in the model's."""
    folders = [folder for folder in (index, model) if "://" not in str(folder)]
    return [Path(folder) / CALIBRATION_FILE for folder in folders]


def identify(hits: Sequence[Hit], calibration: Calibration) -> IdentityAnswer:
    """What a query shows, from its nearest neighbours over the whole index.

    Args:
        hits: nearest first, not narrowed by any filter; those beyond `calibration.neighbours` are left out.
        calibration: how to read them.
    """
    voters = list(hits[: calibration.neighbours])
    answers = _answers(voters, calibration.attributes)
    evidence = []
    for hit in voters:
        agrees = tuple(
            name for name, answer in answers.items() if answer.value is not None and getattr(hit, name) == answer.value
        )
        if agrees:
            evidence.append(Evidence(id=hit.id, distance=hit.distance, agrees=agrees))
    return IdentityAnswer(**answers, evidence=tuple(evidence))


def value_codes(values: Sequence[str | None], known: dict[str, int]) -> list[int]:
    """Values as numbers; new ones are added to `known`, None is `NO_VOTE`."""
    return [NO_VOTE if value is None else known.setdefault(value, len(known)) for value in values]


def _answers(voters: Sequence[Hit], calibrations: Mapping[str, AttributeCalibration]) -> dict[str, AttributeAnswer]:
    """What the neighbours say of every attribute: one vote on all of them."""
    unknown = AttributeAnswer(value=None, confidence=0.0, known=False)
    answers, codes, values = dict.fromkeys(ATTRIBUTES, unknown), list[list[int]](), dict[str, list[str]]()
    for name in ATTRIBUTES:
        if name not in calibrations:
            continue
        read = calibrations[name]
        answers[name] = dataclasses.replace(unknown, known_precision=read.precision, known_threshold=read.threshold)
        known: dict[str, int] = {}
        own = value_codes([getattr(hit, name) for hit in voters], known)
        if known:
            codes.append(own)
            values[name] = list(known)
    if not values:
        return answers
    distances = np.array([hit.distance for hit in voters]).clip(0.0, FARTHEST)
    reads = [calibrations[name] for name in values]
    temperatures = np.array([[read.temperature] for read in reads])
    votes = vote(np.broadcast_to(distances, (len(codes), len(voters))), np.array(codes), temperatures)
    sure = confidence(votes.features, np.array([read.weights for read in reads]))
    for name, read, winner, probability in zip(values, reads, votes.winner.tolist(), sure.tolist(), strict=True):
        known_now = read.threshold is not None and probability >= read.threshold
        answers[name] = dataclasses.replace(
            answers[name], value=values[name][winner], confidence=probability, known=known_now
        )
    return answers


def _of_another(path: Path, found: Calibration, model_fingerprint: str) -> str:
    return (
        f"{path} was made with model {found.model_fingerprint}, the queries with {model_fingerprint}; "
        "calibrate again with: univert calibrate MODEL INDEX CATALOGUE"
    )
