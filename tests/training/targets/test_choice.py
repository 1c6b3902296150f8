from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.shop import Shop
from univert.core.run import Run
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.readers import open_source
from univert.data.unseen_brands import keep_brands_out_of_train
from univert.metrics.compare import Comparison, Difference, Metric, Verdict
from univert.training.evaluation import Row, TestSplit
from univert.training.finetune import FinetuneConfig
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.targets import choice as module
from univert.training.targets.choice import Candidate, choose, compare_on_validation, judge
from univert.training.triplet_training import compare_on_split


def difference(metric: Metric, change: float, verdict: Verdict = "same") -> Difference:
    return Difference(
        metric=metric,
        first=0.5,
        second=0.5 + change,
        difference=change,
        low=change - 0.01,
        high=change + 0.01,
        p_value=0.5 if verdict == "same" else 0.001,
        p_adjusted=0.5 if verdict == "same" else 0.001,
        verdict=verdict,
        queries=40,
        products=10,
    )


def comparison(
    recall: float,
    precision: float,
    *,
    merged: Verdict = "same",
    precise: Verdict = "same",
    discs: Verdict = "same",
    metric: Metric = "map_at_r",
) -> Comparison:
    """Differences in the merged gallery, and verdicts there (Recall@1, MAP@R) and in one vertical (`metric`)."""
    within: dict[Metric, Difference] = {
        name: difference(name, 0.0, discs if name == metric else "same") for name in ("recall_at_1", "map_at_r")
    }
    return Comparison(
        merged={
            "recall_at_1": difference("recall_at_1", recall, merged),
            "map_at_r": difference("map_at_r", precision, precise),
        },
        verticals={"discs": within, "squares": {name: difference(name, 0.0) for name in within}},
        tolerance=0.01,
        level=0.95,
    )


@pytest.mark.parametrize(
    ("found", "taken", "words"),
    [
        (comparison(0.03, 0.001), True, "ahead, if not beyond chance, and nowhere worse (+3.0 R@1, +0.1 MAP@R merged)"),
        (comparison(-0.03, 0.03, precise="better"), True, "better and nowhere worse (-3.0 R@1, +3.0 MAP@R merged)"),
        (comparison(0.03, -0.001, merged="better"), False, "not ahead in MAP@R"),
        (comparison(0.0, 0.0), False, "not ahead in MAP@R"),
        (comparison(0.5, 0.5, discs="worse", metric="recall_at_1"), False, "worse in discs"),
        (comparison(-0.05, 0.5, merged="worse", discs="worse"), False, "worse in discs, merged"),
    ],
)
def test_a_challenger_must_gain_and_lose_nowhere(found: Comparison, taken: bool, words: str) -> None:
    assert judge(found)[0] is taken
    assert words in judge(found)[1]


def candidates(shop: Shop, keys: str) -> list[Candidate]:
    models = [*shop.own.models, *shop.mixed.models, *shop.joint.models]
    return [Candidate(key=key, title=f"Model {key}", model=model) for key, model in zip(keys, models, strict=False)]


def decided(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, keys: str, better: Sequence[tuple[str, str]]
) -> tuple[module.Choice, list[str]]:
    """Choose where the first of each pair of keys loses to the second, and every other challenger fails."""
    found = candidates(shop, keys)
    named = {candidate.model.key: candidate.key for candidate in found}
    asked: list[str] = []

    def compare(context: RunContext, stage: str, keys: list[str], *embed: object, **options: object) -> Comparison:
        if options:
            return comparison(0.0, 0.0)
        pair = named[keys[0]], named[keys[1]]
        asked.append("".join(pair))
        return comparison(0.1, 0.1, precise="better") if pair in better else comparison(-0.1, 0.0)

    monkeypatch.setattr(module, "compare_on_validation", compare)
    return choose(shop.context, found, shop.own), asked


def test_the_champion_meets_every_challenger(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    choice, asked = decided(shop, monkeypatch, "abcd", [("a", "b"), ("b", "d")])
    assert asked == ["ab", "bc", "bd"]
    assert choice.chosen.key == "d"
    assert [step.taken for step in choice.steps] == [True, False, True]
    values = choice.to_dict()
    assert [candidate["key"] for candidate in values["candidates"]] == list("abcd")
    assert all(0 <= candidate["recall_at_1"] <= 1 for candidate in values["candidates"])
    reason = "Model d: better and nowhere worse (+10.0 R@1, +10.0 MAP@R merged), against Model b"
    assert values["reason"] == reason


def test_a_tie_goes_to_the_first(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    choice, asked = decided(shop, monkeypatch, "abc", [])
    assert (choice.chosen.key, asked) == ("a", ["ab", "ac"])
    for name in ("Model b", "Model c"):
        assert f"{name}, compared with it: not ahead in MAP@R" in choice.reason


def test_without_validation_queries_the_last_is_taken(
    shop: Shop, catalogue: Catalogue, recipe: Recipe, tmp_path: Path
) -> None:
    without = RunContext(Run(tmp_path), catalogue.select(split=["train", "test"]), recipe)
    assert without.images.validation_queries is None
    choice = choose(without, candidates(shop, "abc"), shop.own)
    assert (choice.chosen.key, choice.steps) == ("c", ())
    assert "no validation queries" in choice.reason
    alone = choose(without, candidates(shop, "a"), shop.own)
    assert alone.reason == "Model a: there is no other candidate"


def test_real_models_are_compared_on_val_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    found = candidates(shop, "abcde")
    first = choose(shop.context, found, shop.own).to_dict()
    monkeypatch.setattr(module, "compare_vectors", None)
    assert choose(shop.context, found, shop.own).to_dict() == first
    monkeypatch.undo()
    positions = shop.context.images.validation_queries
    assert positions is not None
    assert set(shop.context.images.splits[positions]) == {"val"}
    assert (shop.context.images.products[positions] >= 0).all()
    assert first["steps"][0]["comparison"]["merged"]["recall_at_1"]["queries"] == len(positions)


def test_a_model_is_copied_once_and_again_when_another_is_chosen(
    shop: Shop, catalogue: Catalogue, recipe: Recipe, tmp_path: Path
) -> None:
    copy = RunContext(Run(tmp_path), catalogue, recipe).stages.copy
    first, second = shop.own.models
    copied = copy(first, "unified")
    weights = tmp_path / "unified" / "model.safetensors"
    assert (copied.name, copied.key, copied.folder) == ("unified", first.key, tmp_path / "unified")
    time = weights.stat().st_mtime_ns
    copy(first, "unified")
    assert weights.stat().st_mtime_ns == time
    copy(second, "unified")
    assert weights.read_bytes() == (second.folder / "model.safetensors").read_bytes()
    weights.unlink()
    assert copy(second, "unified").folder == copy(copied, "unified").folder
    assert weights.exists()


def test_brands_never_seen_have_a_say(catalogue: Catalogue, recipe: Recipe, tmp_path: Path) -> None:
    lost = replace(comparison(0.5, 0.5, merged="better"), unseen_brands=comparison(-0.2, 0.0, merged="worse").merged)
    assert judge(lost) == (False, "worse in brands never seen (+50.0 R@1, +50.0 MAP@R merged)")

    build_catalogue(keep_brands_out_of_train(lambda: open_source(catalogue.path), 0.5), tmp_path / "cat")
    context = RunContext(Run(tmp_path / "run"), Catalogue.open(tmp_path / "cat"), recipe)
    found = compare_on_validation(context, "a", [], *[context.features.base_vectors] * 2)
    assert found is not None
    assert found.unseen_brands is not None
    assert found.unseen_brands["recall_at_1"].queries == 6
    tuned = compare_on_split(context, context.features.base, context.features.base, FinetuneConfig(), "val")
    assert tuned is not None
    assert tuned.unseen_brands is not None
    test = TestSplit(context)
    base = Row(key="base", title="", note="", vectors=context.features.base_vectors, inputs="")
    for measured in (test.evaluate(base), test.evaluate(replace(base, key="routed", routed=True))):
        assert measured.unseen_brands is not None
        assert measured.unseen_brands.queries == 6 < measured.merged.queries
