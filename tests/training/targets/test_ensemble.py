from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.shop import Shop, modified
from tests.training.targets.test_choice import comparison
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.losses.names import LossName
from univert.metrics.compare import Comparison
from univert.training.jobs import TrainedModel
from univert.training.run_context import RunContext
from univert.training.specialists import presentations
from univert.training.targets import ensemble
from univert.training.targets.ensemble import Ensemble, choose_members
from univert.training.targets.members import Member


def chosen(shop: Shop, *members: str, individual: Member | None = None, context: RunContext | None = None) -> Ensemble:
    work = context or shop.context
    recipe = replace(work.recipe, unify=replace(work.recipe.unify, members=members))
    joint: dict[LossName, TrainedModel] = {"proxy-nca": shop.joint.models[0]}
    return choose_members(
        RunContext(work.run, work.images.catalogue, recipe),
        shop.own,
        individual or shop.wide,
        joint,
        joint_presentations=200,
    )


def better(found: Comparison) -> Comparison:
    """The same gain, and sure."""
    merged = {**found.merged, "map_at_r": replace(found.merged["map_at_r"], verdict="better")}
    return replace(found, merged=merged)


def names(members: Sequence[Member]) -> list[str]:
    return [member.name for member in members]


def test_members_stay_where_they_help_and_nowhere_harm(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "verticals": comparison(0.0, 0.02),
        "joint:proxy-nca": better(comparison(0.0, 0.02)),
        "joint:proxy-nca#1": comparison(0.2, -0.01, discs="worse"),
        "joint:triplet": better(comparison(0.2, 0.2, discs="worse")),
    }

    def compare(context: RunContext, members: list[Member], added: Member) -> Comparison:
        return found[added.name]

    monkeypatch.setattr(ensemble, "_compare_targets", compare)
    result = chosen(shop, "specialists", *found)
    assert names(result.members) == ["specialists", "joint:proxy-nca", "joint:proxy-nca#1"]
    assert [tried.name for tried in result.tried] == ["specialists", *found]
    reasons = [tried.reason for tried in result.tried]
    assert reasons[0] == "the first is always in"
    assert reasons[1].startswith("left out: no sure gain, +2.0 points"), "it may be chance"
    assert reasons[2] == "in: +2.0 points of MAP@R (+1.0 to +3.0)"
    assert reasons[3] == "in: another seed of joint:proxy-nca", "whatever it does by itself"
    assert reasons[4].startswith("left out: the targets would be worse in discs; +20.0 points")
    assert [tried.kept for tried in result.tried] == [True, False, True, True, False]
    assert [tried.difference is None for tried in result.tried] == [True, False, False, True, False]
    costs = [presentations(member.distinct) for member in (shop.own, shop.wide, shop.joint)]
    assert [tried.image_presentations for tried in result.tried[:3]] == costs


def test_without_validation_queries_all_are_taken(shop: Shop, catalogue: Catalogue, tmp_path: Path) -> None:
    bare = RunContext(Run(tmp_path), catalogue.select(split=["train", "test"]), shop.context.recipe)
    found = chosen(shop, "specialists", "joint:proxy-nca", context=bare)
    assert names(found.members) == ["specialists", "joint:proxy-nca"]
    assert "no validation queries" in found.tried[1].reason


def test_the_same_models_are_not_counted_twice(shop: Shop) -> None:
    found = chosen(shop, "specialists", "verticals", individual=shop.own)
    assert names(found.members) == ["specialists"]
    assert found.tried[1].reason == "left out: the same models as specialists"
    assert found.tried[1].image_presentations == 0


def test_further_members_are_trained_once_with_other_seeds_and_losses(
    shop: Shop, catalogue: Catalogue, tmp_path: Path
) -> None:
    order = ("joint:proxy-nca#1", "joint:proxy-nca#2", "joint:triplet")
    images = catalogue.select(split=["train", "test"])  # so the last weights stay, whatever they are worth
    context = RunContext(Run(tmp_path), images, shop.context.recipe)
    chosen(shop, *order, context=context)
    path = context.run.path
    prints = {
        (path / folder / "model.safetensors").read_bytes()
        for folder in ("members/joint-proxy-nca-1", "members/joint-proxy-nca-2", "members/joint-triplet")
    }
    assert len(prints) == 3
    assert len(list((path / "cache").glob("features-*"))) == 1, "features do not depend on a member's seed"
    before = modified(path)
    chosen(shop, *order, context=context)
    assert modified(path) == before
