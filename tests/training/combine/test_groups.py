import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from univert.core.config import to_plain
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.metrics.ranking import QueryOutcome
from univert.training.combine import probe
from univert.training.combine.config import CombineConfig
from univert.training.combine.folds import Folds, Measured
from univert.training.combine.groups import Combination, Group, Judge, Trial, combine, combine_by, greedy_groups
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.specialists import train_specialist

QUERIES = 120


def outcome(hits: float, *, queries: int = QUERIES, shift: int = 0) -> QueryOutcome:
    """The first `hits` of the queries (a share) succeed; two queries a product."""
    good = (np.arange(queries) + shift) % queries < round(hits * queries)
    return QueryOutcome(
        rows=np.arange(queries),
        products=np.arange(queries) // 2,
        rank_of_first_hit=np.where(good, 1, 3),
        average_precision_at_r=np.where(good, 0.8, 0.0).astype(np.float64),
    )


class World:
    """A pretended trainer: what a vertical scores is a function of the group it is trained in."""

    def __init__(self, score: dict[str, float], change: object, *, bare: Sequence[str] = ()) -> None:
        self.score, self.change, self.bare = score, change, bare
        self.asked: list[Group] = []

    def __call__(self, verticals: Group) -> Measured:
        self.asked.append(verticals)
        return {
            name: outcome(self.score[name] + (self.change(name, verticals) if len(verticals) > 1 else 0))  # type: ignore[operator]
            for name in verticals
            if name not in self.bare
        }


@pytest.fixture(autouse=True)
def short_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HIDDEN_SIZES": (8,), "SIZE": 8, "STEPS": 4}.items():
        monkeypatch.setattr(probe, name, value)


FOUR = {"dresses": 0.6, "tops": 0.5, "outerwear": 0.4, "shoes": 0.3}


def found(world: World, trials: int = 99) -> tuple[tuple[Group, ...], tuple[Trial, ...], tuple[str, ...]]:
    judge = Judge(measure=world, tolerance=0.01)
    return greedy_groups(sorted(world.score, key=lambda name: -world.score[name]), judge, trials=trials)


def test_the_example_of_the_paper() -> None:
    """Unified, Table 1: dresses and tops go together, outerwear does harm to all three."""
    world = World(FOUR, lambda name, group: -0.2 if "outerwear" in group else 0.05)
    groups, trials, path = found(world)
    assert groups == (("dresses", "tops", "shoes"), ("outerwear",))
    refused = [trial for trial in trials if not trial.accepted]
    assert [trial.verticals for trial in refused] == [tuple(FOUR.keys()), ("dresses", "tops", "outerwear")]
    assert "significantly worse than its own specialist: dresses (R@1 60.0 to 40.0" in refused[1].reason
    assert path[0].startswith("all together: refused")
    assert path[2].startswith("dresses + tops - outerwear: refused")


def test_harm_to_a_member_alone_refuses_and_a_small_fall_does_not() -> None:
    groups, _, _ = found(World(FOUR, lambda name, group: -0.2 if name == "dresses" else 0.1))
    assert groups[0] == ("dresses",)
    groups, trials, path = found(World(FOUR, lambda name, group: -0.009))
    assert (groups, len(trials)) == ((tuple(FOUR),), 1), "one trial of all verticals does where none is worse"
    assert path[0].startswith("all together: accepted")


def test_the_budget_leaves_the_rest_by_themselves() -> None:
    last_hurts = World(FOUR, lambda name, group: -0.2 if "shoes" in group else 0.1)
    groups, trials, path = found(last_hurts, trials=2)
    assert groups == (("dresses", "tops"), ("outerwear",), ("shoes",))
    assert len(trials) == 2
    assert path[-1] == "the budget of 2 trials is spent: outerwear, shoes by themselves, untried from here on"
    groups, trials, path = found(last_hurts, trials=3)
    assert groups == (("dresses", "tops", "outerwear"), ("shoes",))
    assert len(trials) == 3
    assert "budget" not in path[-1]


def naive_groups(names: Sequence[str], accepts: object) -> list[list[str]]:
    """All at once, or else the paper's words, one by one."""
    if accepts(names):  # type: ignore[operator]
        return [list(names)]
    groups: list[list[str]] = []
    waiting = list(names)
    while waiting:
        group, refused = [waiting[0]], []
        for name in waiting[1:]:
            if accepts([*group, name]):  # type: ignore[operator]
                group.append(name)
            else:
                refused.append(name)
        groups.append(group)
        waiting = refused
    return groups


@given(st.integers(1, 7), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_greedy_against_the_naive_way(count: int, seed: int, share: float) -> None:
    names = [f"v{number}" for number in range(count)]

    def accepts(group: Sequence[str]) -> bool:
        key = [seed, *(int(name[1:]) for name in sorted(group))]
        return bool(np.random.default_rng(key).random() < share)

    def judge(number: int, group: Group, added: str) -> Trial:
        ok = accepts([*group, added])
        return Trial(number=number, group=group, added=added, differences={}, accepted=ok, reason="")

    groups, trials, _ = greedy_groups(names, judge, trials=10_000)
    assert [list(group) for group in groups] == naive_groups(names, accepts)
    assert sorted(name for group in groups for name in group) == names
    tried = [frozenset(trial.verticals) for trial in trials]
    assert len(set(tried)) == len(tried) <= 1 + count * (count - 1) // 2
    assert [trial.number for trial in trials] == list(range(1, len(trials) + 1))


def test_a_vertical_without_queries_stays_by_itself() -> None:
    world = World(FOUR, lambda name, group: 0.1, bare=["tops"])
    combination = combine_by(world, sorted(FOUR), CombineConfig(), seed=0)
    assert combination.groups == (("dresses", "outerwear", "shoes"), ("tops",))
    assert "tops has no queries, so no harm to it could be seen: by itself" in combination.path
    as_json = json.loads(json.dumps(to_plain(combination)))
    assert as_json["individual"]["tops"] is None
    assert as_json["trials"][0]["differences"]["outerwear"]["recall_at_1"]["second"] == pytest.approx(0.5)
    nobody = combine_by(World(FOUR, lambda name, group: 0, bare=sorted(FOUR)), sorted(FOUR), CombineConfig(), seed=0)
    assert len(nobody.groups) == 4


def small(recipe: Recipe, **changes: object) -> Recipe:
    return replace(recipe, combine=CombineConfig(folds=2, **changes))  # type: ignore[arg-type]


def test_folds_hold_every_product_out_once(catalogue: Catalogue, recipe: Recipe, tmp_path: Path) -> None:
    context = RunContext(Run(tmp_path), catalogue, recipe)
    folds = Folds(context, 2)
    labelled = context.images.is_train & (context.images.products >= 0)
    for name in context.images.vertical_names:
        held = [folds.queries(name, training) for training in range(2)]
        assert sorted(np.concatenate(held)) == np.flatnonzero(labelled & context.images.of_vertical(name)).tolist()
        assert not set(context.images.products[held[0]]) & set(context.images.products[held[1]])
        for training in range(2):
            among = folds.among([name], training)
            assert not among[held[training]].any()
            assert among[held[1 - training]].all()
            assert (among | np.isin(np.arange(len(among)), held[training]) | ~context.images.of_vertical(name)).all()


def test_without_products_to_spare_the_validation_images_are_the_queries(
    catalogue: Catalogue, recipe: Recipe, tmp_path: Path
) -> None:
    context = RunContext(Run(tmp_path), catalogue.select(labelled=True), recipe)
    few = Folds(context, 5)  # four products a vertical
    for name in context.images.vertical_names:
        val = np.flatnonzero(context.images.of_vertical(name) & (context.images.splits == "val"))
        assert few.queries(name, 0).tolist() == val.tolist()
        assert few.among([name], 0).sum() == context.images.of_vertical(name).sum()


def stages(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "stages").iterdir()}


@pytest.mark.parametrize("mode", ["probe", "full"])
def test_end_to_end_and_again(
    catalogue: Catalogue, recipe: Recipe, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small(recipe, mode=mode)

    def run() -> Combination:
        return combine(RunContext(Run(tmp_path), catalogue, recipe))

    first = run()
    assert sorted(name for group in first.groups for name in group) == ["discs", "squares"]
    assert len(first.trials) == 1
    assert first.trials[0].differences["discs"]["recall_at_1"].queries == 12
    before = stages(tmp_path)
    assert len(before) == (3 if mode == "probe" else 9)
    assert not list(tmp_path.rglob("*.safetensors")), "models of held-out trainings are not kept"
    assert run() == first
    assert stages(tmp_path) == before, "a trial was made again"
    assert not (tmp_path / "specialists").exists()
    other = combine(RunContext(Run(tmp_path / "other"), catalogue, recipe))
    assert other == first


def test_the_probe_reads_features_of_the_untrained_base_network_even_if_that_learns(
    catalogue: Catalogue, recipe: Recipe, tmp_path: Path
) -> None:
    frozen = combine(RunContext(Run(tmp_path / "frozen"), catalogue, small(recipe)))
    for changes in ({"base_network_learns": "all"}, {"base_network_learns": "last_blocks", "maps_gb": 0.0}):
        learning = small(replace(recipe, **changes))  # type: ignore[arg-type]
        found = combine(RunContext(Run(tmp_path / str(len(changes))), catalogue, learning))
        assert found == frozen


def test_the_probe_takes_another_loss(catalogue: Catalogue, recipe: Recipe, tmp_path: Path) -> None:
    specialists = replace(recipe.specialists, loss="dynamic-proxy-nca")
    combination = combine(RunContext(Run(tmp_path), catalogue, small(replace(recipe, specialists=specialists))))
    assert combination.individual["discs"] is not None


def test_off_and_a_single_vertical(catalogue: Catalogue, recipe: Recipe, tmp_path: Path) -> None:
    off = combine(RunContext(Run(tmp_path), catalogue, replace(recipe, combine=CombineConfig(mode="off"))))
    assert off.groups == (("discs",), ("squares",))
    assert off.individual["discs"] is None
    one = combine(RunContext(Run(tmp_path), catalogue.select(vertical=["discs"]), recipe))
    assert one.groups == (("discs",),)
    assert not (tmp_path / "stages").exists()


def test_a_group_is_trained_without_any_trial_too(catalogue: Catalogue, recipe: Recipe, tmp_path: Path) -> None:
    context = RunContext(Run(tmp_path), catalogue, recipe)
    assert train_specialist(context, "discs").name == "specialists/discs"
    assert train_specialist(context, "discs", "squares").record["steps"] == 24
    assert not (tmp_path / "trials").exists()
