"""Simulated raters of known error rates; alpha by hand; Label Studio there and back."""

import json
import random
from pathlib import Path

import pytest

from univert.core.errors import BadInputError
from univert.curation.agreement import Agreement, answers_csv, krippendorff_alpha, triplets_csv
from univert.curation.label_studio import LABELLING_CONFIG, read_answers, tasks
from univert.data.ratings import Answer, Ratings

FLIPPED = {"yes": "no", "no": "yes"}
ERRORS = {"ann": 0.03, "bob": 0.1, "cyd": 0.15, "eve": 0.5}


def test_alpha_by_hand() -> None:
    # two observers, ten units, 4 of which differ; 14 times no, 6 times yes: 1 - 19 * 4 / (14 * 6)
    first, second = "0100000000", "1110010010"
    units = [(one == "1", other == "1") for one, other in zip(first, second, strict=True)]
    assert krippendorff_alpha([*units, (True,), ()]) == pytest.approx(1 - 76 / 84)
    assert krippendorff_alpha([(True, True), (False, False, False)]) == 1
    assert krippendorff_alpha([(True, True), (True,)]) is None
    assert krippendorff_alpha([]) is None


def simulate(path: Path, count: int = 250, seed: int = 0) -> dict[int, tuple[str, str]]:
    """Rate triplets of known truth, each by three raters; eve guesses."""
    rng = random.Random(seed)
    with Ratings(path, create=True, chance=rng.random) as ratings:
        ratings.choose(raters=3, gold_share=0.2)
        for known in (("yes", "yes"), ("no", "no")):
            names = [f"{known[0]}{n}" for n in range(10)]
            ratings.add([(f"{name}a", f"{name}p", f"{name}n", "gold") for name in names], gold=known)
        ratings.add([(f"{n}a", f"{n}p", f"{n}n", "uv"[n % 2]) for n in range(count)])
        truth = {
            one.id: one.gold or ("yes" if rng.random() < 0.7 else "no", "yes" if rng.random() < 0.8 else "no")
            for one in ratings.triplets()
        }
        answers = []
        for triplet in ratings.triplets():
            for rater in ERRORS if triplet.gold else rng.sample(sorted(ERRORS), 3):
                said = [FLIPPED[word] if rng.random() < ERRORS[rater] else word for word in truth[triplet.id]]
                said = ["unsure" if rng.random() < 0.02 else word for word in said]
                answers.append(
                    Answer(triplet=triplet.id, rater=rater, same=said[0], different=said[1], seconds=2.0, time_s=0.0)
                )
        ratings.put(answers)
    return truth


def test_error_rates_are_recovered_and_who_guesses_is_set_aside(tmp_path: Path) -> None:
    truth = simulate(tmp_path / "ratings")
    with Ratings(tmp_path / "ratings") as ratings:
        agreement = Agreement(ratings)
    assert list(agreement.set_aside) == ["eve"]
    assert "of 40 gold questions right, below 70%" in agreement.set_aside["eve"]
    for rater, accuracy in agreement.accuracy.items():
        assert accuracy == pytest.approx(1 - ERRORS[rater], abs=0.04)
    clean = agreement.clean(0.95)
    right = {number for number, known in truth.items() if known == ("yes", "yes")}
    assert sum(one.id in right for one in clean) >= 0.96 * len(clean)
    assert all(one.gold is None for one in clean)
    found = agreement.summary()
    by_name = {rater.name: rater for rater in found.raters}
    assert by_name["eve"].set_aside is not None
    assert by_name["eve"].accuracy is None
    assert abs(by_name["eve"].alpha or 1) < 0.15
    assert (by_name["ann"].alpha or 0) > 0.6
    assert (found.triplets, found.rated, found.clean) == (250, 250, len(clean))
    assert [(one.vertical, one.triplets) for one in found.verticals] == [("u", 125), ("v", 125)]
    assert sum(one.clean for one in found.verticals) == len(clean)
    with Ratings(tmp_path / "ratings") as ratings:
        kept = Agreement(ratings, gold_accuracy=0.0)
    assert kept.set_aside == {}
    assert kept.accuracy["eve"] == pytest.approx(0.5, abs=0.1)


def test_one_answer_alone_makes_no_triplet_clean_but_where_one_was_asked_for(tmp_path: Path) -> None:
    with Ratings(tmp_path / "ratings", create=True) as ratings:
        ratings.add([("a", "p", "n", "v")])
        ratings.put([Answer(triplet=1, rater="ann", same="yes", different="yes", seconds=None, time_s=0.0)])
        ratings.choose(raters=2, gold_share=0)
        assert Agreement(ratings).clean() == []
        ratings.choose(raters=1, gold_share=0)
        agreement = Agreement(ratings)
        assert triplets_csv(agreement.clean()).split() == ["anchor,positive,negative,vertical", "a,p,n,v"]
        assert agreement.summary().alpha is None
        assert answers_csv(ratings).splitlines()[1] == "a,p,n,v,ann,yes,yes,,0.0,,"


def test_label_studio_there_and_back(tmp_path: Path) -> None:
    simulate(tmp_path / "ratings", 30)
    with Ratings(tmp_path / "ratings") as ratings, Ratings(tmp_path / "other", create=True) as other:
        found = tasks(ratings, "https://shop.example/p/{id}.jpg", Agreement(ratings))
        (tmp_path / "tasks.json").write_text(json.dumps(found))
        for one in ratings.triplets():
            other.add([(one.anchor, one.positive, one.negative, one.vertical)], gold=one.gold)
        answers, left_out = read_answers(tmp_path / "tasks.json", other)
        other.put(answers)
        complete = sorted(ratings.answers(), key=lambda one: (one.triplet, one.rater))
        assert sorted(other.answers(), key=lambda one: (one.triplet, one.rater)) == complete
        assert left_out == 0
    # as https://labelstud.io/guide/task_format and .../guide/predictions have it
    for task in found:
        assert set(task) - {"predictions"} == {"data", "annotations"}
        assert task["data"]["anchor"] == f"https://shop.example/p/{task['data']['anchor_id']}.jpg"
        assert "gold" not in json.dumps({**task, "data": {**task["data"], "vertical": ""}})
        for part in [*task["annotations"], *task.get("predictions", [])]:
            for result in part["result"]:
                assert (result["type"], result["to_name"]) in (("choices", "positive"), ("choices", "negative"))
                assert f'<Choices name="{result["from_name"]}" toName="{result["to_name"]}"' in LABELLING_CONFIG
                assert result["value"]["choices"][0] in ("yes", "no", "unsure")
    assert any(0 <= prediction["score"] <= 1 for task in found for prediction in task.get("predictions", []))


def test_what_label_studio_exports_is_read(tmp_path: Path) -> None:
    path, data = tmp_path / "export.json", {"anchor_id": "a", "positive_id": "p", "negative_id": "n"}

    def said(**verdicts: str) -> list[dict[str, object]]:
        return [
            {"from_name": name, "to_name": "x", "type": "choices", "value": {"choices": [verdict]}}
            for name, verdict in verdicts.items()
        ]

    when, both = {"created_at": "2026-03-09T22:16:08.728353Z", "lead_time": 4.288}, said(same="yes", different="no")
    annotations = [
        {"completed_by": 10, "result": both, **when},
        {"completed_by": {"id": 3, "email": "ann@shop.example"}, "result": both, **when},
        {"completed_by": 11, "result": both, "was_cancelled": True, **when},
        {"completed_by": 12, "result": said(same="yes"), **when},
    ]
    path.write_text(json.dumps([{"id": 1, "data": data, "annotations": annotations}]))
    with Ratings(tmp_path / "ratings", create=True) as ratings:
        ratings.add([("a", "p", "n", "v")])
        answers, left_out = read_answers(path, ratings)
        assert ([one.rater for one in answers], left_out) == (["10", "ann@shop.example"], 2)
        assert (answers[0].same, answers[0].different, answers[0].seconds) == ("yes", "no", 4.288)
        for content, message in (("[", "not a readable JSON"), ('{"a": 1}', "not a list of tasks"), ("[]", "no task")):
            path.write_text(content)
            with pytest.raises(BadInputError, match=message):
                read_answers(path, ratings)
