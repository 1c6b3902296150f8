import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from univert.core.errors import BadInputError
from univert.identity.vote import (
    ATTRIBUTES,
    NO_VOTE,
    AttributeCalibration,
    Calibration,
    calibration_places,
    confidence,
    find_calibration,
    identify,
    vote,
)
from univert.search.query import Hit

WEIGHTS = (0.5, 1.0, -2.0, 0.1, -0.3)
ONE = {"temperature": 0.1, "weights": WEIGHTS, "precision": 0.9, "threshold": 0.5}
FILE = {"format": 1, "model_fingerprint": "m", "engine": "onnx", "neighbours": 4}


def calibrated(threshold: float | None = 0.5, **changes: object) -> Calibration:
    one = AttributeCalibration(temperature=0.1, weights=WEIGHTS, precision=0.9, threshold=threshold)
    values = {
        "model_fingerprint": "model",
        "engine": "onnx",
        "neighbours": 4,
        "attributes": dict.fromkeys(ATTRIBUTES, one),
    }
    return Calibration(**{**values, **changes})  # type: ignore[arg-type]


def hit(number: int, distance: float, **columns: str | None) -> Hit:
    return Hit(id=f"i{number}", distance=distance, vertical=columns.pop("vertical", None) or "shoes", **columns)


def naive_vote(
    distances: list[float], codes: list[int], temperature: float
) -> tuple[int, list[float], dict[int, float]]:
    """The vote as one would write it down."""
    weights = {code: 0.0 for code in codes if code != NO_VOTE}
    for distance, code in zip(distances, codes, strict=True):
        if code != NO_VOTE:
            weights[code] += math.exp(-(distance - distances[0]) / temperature)
    if not weights:
        return NO_VOTE, [], {}
    shares = {code: weight / sum(weights.values()) for code, weight in weights.items()}
    winner = max(shares, key=lambda code: (shares[code], -codes.index(code)))
    own = sorted(d for d, code in zip(distances, codes, strict=True) if code == winner)
    share = min(max(shares[winner], 0.01), 0.99)
    second = own[1] if len(own) > 1 else distances[-1]
    return winner, [math.log(share / (1 - share)), own[0], math.log(len(own)), second], shares


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 4), st.integers(-1, 3)), min_size=1, max_size=8), st.floats(0.02, 2))
def test_votes_are_what_one_would_write_down(neighbours: list[tuple[float, int]], temperature: float) -> None:
    neighbours.sort(key=lambda pair: pair[0])
    distances, codes = [d for d, _ in neighbours], [c for _, c in neighbours]
    votes = vote(np.array([distances, distances]), np.array([codes, codes]), temperature)
    winner, features, shares = naive_vote(distances, codes, temperature)
    if winner == NO_VOTE:
        assert votes.winner.tolist() == [NO_VOTE, NO_VOTE]
        assert np.isfinite(votes.features).all()
        return
    for row in range(2):
        # The winner may be another of those with the same share to the last bit.
        assert shares[int(votes.winner[row])] == pytest.approx(shares[winner])
        expected = [shares.get(code, 0.0) for code in codes]
        assert votes.shares[row] == pytest.approx(expected)
    if sum(value == pytest.approx(shares[winner]) for value in shares.values()) == 1:
        assert votes.features[0] == pytest.approx(features)


def test_unlabelled_neighbours_do_not_vote_and_are_no_evidence() -> None:
    hits = [hit(0, 0.1), hit(1, 0.2), hit(2, 0.3, brand="Maker"), hit(3, 0.4, brand="Other")]
    answer = identify(hits, calibrated())
    assert answer.brand.value == "Maker"
    assert answer.product.value is None
    assert (answer.product.confidence, answer.product.known) == (0.0, False)
    assert [(e.id, e.agrees) for e in answer.evidence] == [
        ("i0", ("vertical",)),
        ("i1", ("vertical",)),
        ("i2", ("vertical", "brand")),
        ("i3", ("vertical",)),
    ]


def test_known_means_over_the_threshold() -> None:
    hits = [hit(number, 0.2) for number in range(4)]
    sure = identify(hits, calibrated()).vertical.confidence
    votes = vote(np.full((1, 4), 0.2), np.zeros((1, 4), int), 0.1)
    assert sure == pytest.approx(float(confidence(votes.features, np.array(WEIGHTS))[0]))
    assert identify(hits, calibrated(threshold=sure)).vertical.known
    assert not identify(hits, calibrated(threshold=sure + 1e-6)).vertical.known
    assert not identify(hits, calibrated(threshold=None)).vertical.known


@pytest.mark.parametrize("threshold", [0.5, None])
def test_each_attribute_states_what_known_promises(threshold: float | None) -> None:
    """Also where the neighbours have no value of it; an attribute without a calibration promises nothing."""
    product = AttributeCalibration(temperature=0.1, weights=WEIGHTS, precision=0.7, threshold=threshold)
    brand = AttributeCalibration(temperature=0.1, weights=WEIGHTS, precision=0.9, threshold=threshold)
    calibration = calibrated(attributes={"product": product, "brand": brand})
    values = identify([hit(0, 0.1, brand="Maker")], calibration).model_dump()
    stated = {name: (values[name]["known_precision"], values[name]["known_threshold"]) for name in ATTRIBUTES}
    assert stated == {
        "product": (0.7, threshold),
        "brand": (0.9, threshold),
        "vertical": (None, None),
        "style": (None, None),
    }


@pytest.mark.parametrize("hits", [[], [hit(0, 0.0)], [hit(0, -1e-9)], [hit(0, 4.0 + 1e-6)]])
def test_few_or_odd_neighbours_are_no_problem(hits: list[Hit]) -> None:
    answer = identify(hits, calibrated())
    assert 0 <= answer.vertical.confidence <= 1
    assert json.loads(json.dumps(answer.model_dump()))["vertical"]["value"] == (hits[0].vertical if hits else None)


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    calibration = calibrated(threshold=None, report={"images": 3})
    calibration.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == calibration


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "cannot be read"),
        ("[]", "format 1"),
        ('{"format": 2}', "format 1"),
        ('{"format": 1}', "model_fingerprint: Field required"),
        ('{"format": 1, "model": "x"}', "unknown key model; valid keys: model_fingerprint, "),
        (json.dumps(FILE | {"attributes": {"vertical": {}}}), "temperature: Field required"),
        (json.dumps(FILE | {"attributes": {"vertical": ONE | {"temperature": 0}}}), "temperature must be positive"),
        (json.dumps(FILE | {"attributes": {"vertical": ONE | {"precision": 90}}}), "between 0 and 1, got 90"),
        (json.dumps(FILE | {"attributes": {"vertical": ONE | {"weights": [1]}}}), "weights must be 5 finite numbers"),
    ],
)
def test_a_file_that_is_no_calibration_is_refused(content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(content)
    with pytest.raises(BadInputError, match=says):
        Calibration.load(path)


def test_the_calibration_beside_the_index_comes_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    index, model = tmp_path / "index", tmp_path / "model"
    assert find_calibration(index, model, "model") is None
    calibrated(engine="torch").save(model / "calibration.json")
    assert find_calibration(index, model, "model").engine == "torch"
    calibrated(model_fingerprint="older").save(index / "calibration.json")
    assert find_calibration(index, model, "model").engine == "torch"
    assert "was made with model older" in caplog.text
    calibrated().save(index / "calibration.json")
    assert find_calibration(index, model, "model").engine == "onnx"
    assert calibration_places("s3://shop/index", model) == [model / "calibration.json"]


def test_a_named_calibration_must_fit(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    with pytest.raises(BadInputError, match="no such calibration"):
        find_calibration(tmp_path, tmp_path, "model", path=path)
    calibrated(model_fingerprint="older").save(path)
    with pytest.raises(BadInputError, match="was made with model older"):
        find_calibration(tmp_path, tmp_path, "model", path=path)
