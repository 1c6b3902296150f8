from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.shop import Shop
from tests.training.targets.test_choice import comparison
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.losses.names import LossName
from univert.metrics.compare import Comparison
from univert.training.jobs import TrainedModel
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.specialists import presentations
from univert.training.targets import ensemble as module
from univert.training.targets.config import TargetsConfig, UnifyConfig
from univert.training.targets.ensemble import Ensemble, blind_targets, choose_members
from univert.training.targets.map import fit_target_map
from univert.training.targets.members import Member
from univert.training.targets.projection import unit

BASE = 200


def with_unify(context: RunContext, **changes: object) -> RunContext:
    unify: UnifyConfig = replace(context.recipe.unify, **changes)  # type: ignore[arg-type]
    return RunContext(context.run, context.images.catalogue, replace(context.recipe, unify=unify))


def chosen(shop: Shop, *members: str, context: RunContext | None = None, **changes: object) -> Ensemble:
    joint: dict[LossName, TrainedModel] = {"proxy-nca": shop.joint.models[0]}
    work = with_unify(context or shop.context, members=members, **changes)
    return choose_members(work, shop.own, shop.wide, joint, base_presentations=BASE)


def names(members: Sequence[Member]) -> list[str]:
    return [member.name for member in members]


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Comparison]:
    """What the comparison of the targets with each member finds, by its name."""
    found: dict[str, Comparison] = {}
    monkeypatch.setattr(module, "_compare", lambda context, without, joined: found[joined[-1].name])
    return found


def test_members_stay_where_they_help_and_nowhere_harm(shop: Shop, verdicts: dict[str, Comparison]) -> None:
    verdicts["verticals"] = comparison(0.2, -0.01)
    verdicts["joint:proxy-nca"] = comparison(0.0, 0.02)
    verdicts["joint:proxy-nca#1"] = comparison(0.2, 0.2, discs="worse")
    order = ("specialists", "verticals", "joint:proxy-nca", "joint:proxy-nca#1")
    found = chosen(shop, *order, budget=20.0)
    assert names(found.members) == ["specialists", "joint:proxy-nca"]
    reasons = [tried.reason for tried in found.tried]
    assert [tried.name for tried in found.tried] == list(order)
    assert reasons[0] == "the first is always in"
    assert reasons[1].startswith("left out: it gains nothing, -1.0 points of MAP@R")
    assert reasons[2] == "in: +2.0 points of MAP@R (+1.0 to +3.0)"
    assert reasons[3].startswith("left out: the targets would be worse in discs; +20.0 points")
    values = found.to_dict()
    assert [member["kept"] for member in values["members"]] == [True, False, True, False]
    assert [member["difference"] is None for member in values["members"]] == [True, False, False, False]
    assert values["budget_presentations"] == 20 * BASE


def test_members_beyond_the_budget_are_not_trained(shop: Shop) -> None:
    own = presentations(shop.own.distinct)
    ready = presentations(shop.joint.distinct)
    budget = (own + ready + BASE - 1) / BASE
    order = ("specialists", "joint:proxy-nca", "joint:triplet", "specialists:proxy-nca#5")
    found = chosen(shop, *order, budget=budget, choose=False)
    assert names(found.members) == ["specialists", "joint:proxy-nca"]
    assert [tried.image_presentations for tried in found.tried] == [own, ready, 0, 0]
    assert found.tried[2].reason == (
        f"left out: {BASE:,} image presentations more would exceed the budget of {own + ready + BASE - 1:,}"
    )
    path = shop.context.run.path / "members"
    assert not (path / "joint-triplet").exists()
    assert not (path / "specialists-proxy-nca-5").exists()


def test_the_first_is_in_whatever_it_costs(shop: Shop) -> None:
    assert names(chosen(shop, "specialists", "joint:proxy-nca", budget=0.001).members) == ["specialists"]


def test_all_are_taken_unasked(shop: Shop, verdicts: dict[str, Comparison]) -> None:
    found = chosen(shop, "specialists", "verticals", "joint:proxy-nca", budget=20.0, choose=False)
    assert names(found.members) == ["specialists", "verticals", "joint:proxy-nca"]
    assert all(tried.difference is None for tried in found.tried)


def test_without_validation_queries_all_are_taken(shop: Shop, catalogue: Catalogue, tmp_path: Path) -> None:
    bare = RunContext(Run(tmp_path), catalogue.select(split=["train", "test"]), shop.context.recipe)
    found = chosen(shop, "specialists", "joint:proxy-nca", context=bare, budget=20.0)
    assert names(found.members) == ["specialists", "joint:proxy-nca"]
    assert "no validation queries" in found.tried[1].reason


def test_the_same_models_are_not_counted_twice(shop: Shop) -> None:
    work = with_unify(
        shop.context, members=("specialists", "verticals", "specialists:triplet"), budget=20.0, choose=False
    )
    found = choose_members(work, shop.own, shop.own, {}, base_presentations=BASE)
    assert names(found.members) == ["specialists"]
    assert [tried.reason for tried in found.tried[1:]] == ["left out: the same models as specialists"] * 2


def test_further_members_are_trained_with_other_seeds_and_losses(shop: Shop) -> None:
    order = ("joint:proxy-nca", "joint:proxy-nca#1", "specialists:proxy-nca", "specialists:triplet#1")
    found = chosen(shop, *order, budget=99.0, choose=False)
    assert names(found.members) == list(order)
    prints = {model.embedder.fingerprint for member in found.members for model in member.distinct}
    assert len(prints) == 6
    path = shop.context.run.path
    assert (path / "members" / "joint-proxy-nca-1" / "config.json").exists()
    card = (path / "members" / "specialists-triplet-1" / "squares" / "README.md").read_text()
    assert "squares" in card
    assert "discs" not in card.split("recipe")[0].split("```")[0]
    assert len(list((path / "cache").glob("features-*"))) == 1, "features do not depend on a member's seed"
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*.safetensors")}
    assert [member.key for member in chosen(shop, *order, budget=99.0, choose=False).members] == [
        member.key for member in found.members
    ]
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*.safetensors")} == before


def test_a_comparison_is_made_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    first = chosen(shop, "specialists", "joint:proxy-nca", budget=20.0)
    assert first.tried[1].difference is not None
    monkeypatch.setattr(module, "compare_vectors", None)
    assert chosen(shop, "specialists", "joint:proxy-nca", budget=20.0) == first


def test_blind_targets_weigh_the_specialists_by_the_predicted_verticals(shop: Shop) -> None:
    work, members, config = shop.context, [shop.own, shop.joint], TargetsConfig()
    found = fit_target_map(work, members, config)
    blind = blind_targets(work, members, config, shop.everything)
    odds = work.features.vertical_probabilities(shop.everything)
    odds = np.where(odds >= 0.05, odds, 0)
    odds /= odds.sum(axis=1, keepdims=True)
    own = [work.features.source.embed_all(model.embedder, shop.everything) for model in shop.own.models]
    total = work.features.source.embed_all(shop.joint.models[0].embedder, shop.everything) @ found.matrices[1][0]
    for number in range(2):
        total += odds[:, number, None] * (own[number] @ found.matrices[0][number])
    np.testing.assert_allclose(blind, unit(total), atol=1e-5)


def test_labelled_only_holds_for_the_comparison_too(shop: Shop, recipe: Recipe) -> None:
    members, config = [shop.own, shop.joint], recipe.unify.targets
    both, labelled = (
        blind_targets(with_unify(shop.context, unlabelled=flag), members, config, shop.everything)
        for flag in (True, False)
    )
    assert not np.allclose(both, labelled, atol=1e-4)
