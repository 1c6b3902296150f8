"""Stages around the unified model: polishing, images of unknown vertical, ways, and doing nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.drawn import drawn_rows
from tests.training.shop import Shop, specialists
from tests.training.targets.test_choice import comparison
from univert.core.errors import BadInputError, TrainingError
from univert.core.run import Run
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.rows import SourceRow
from univert.losses.target_l2_loss import TargetL2Loss
from univert.main_job import train
from univert.training import loop
from univert.training.combine.config import CombineConfig
from univert.training.objectives import Objective, TargetObjective
from univert.training.recipe import DataConfig, EvaluationConfig, Recipe
from univert.training.run_context import RunContext
from univert.training.stages import POLISHED
from univert.training.targets import choice
from univert.training.targets.config import PolishConfig, PolishLabelsConfig, PolishLoopConfig, TargetsConfig
from univert.training.targets.learning_targets import learning_targets, vertical_weights
from univert.training.targets.members import Member
from univert.training.unify import PolishObjective, polish, train_unified, usable

UNSORTED = "unsorted"


@pytest.fixture(scope="session")
def mixed_up(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """The drawn catalogue, where the vertical of some unlabelled images is unknown."""

    def rows() -> Iterator[SourceRow]:
        for row in drawn_rows():
            lost = row.product is None and row.origin.startswith(("discs-1-", "squares-9-"))
            yield replace(row, vertical=UNSORTED) if lost else row

    out = tmp_path_factory.mktemp("catalogue") / "unsorted.lance"
    build_catalogue(rows(), out)
    return Catalogue.open(out)


@pytest.fixture
def quick(recipe: Recipe) -> Recipe:
    """Every vertical by itself, and no rivals."""
    return replace(recipe, combine=CombineConfig(mode="off"), evaluation=EvaluationConfig(baselines=(), resamples=20))


@pytest.fixture
def polishing(recipe: Recipe) -> PolishConfig:
    loop = PolishLoopConfig(epochs=1, min_steps=6, batch_size=12, evaluations=2)
    return PolishConfig(enabled=True, labels=PolishLabelsConfig(loop=loop))


def unify(recipe: Recipe, **changes: object) -> Recipe:
    return replace(recipe, unify=replace(recipe.unify, **changes))  # type: ignore[arg-type]


def weights(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


class Constant(Objective):
    """A loss that is its value, for a sum to be seen."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, embeddings: torch.Tensor, positions: np.ndarray, views: np.ndarray) -> torch.Tensor:
        return embeddings.sum() * 0 + self.value

    def figures(self) -> dict[str, float]:
        return {"watched": self.value}


def test_polishing_adds_the_two_losses() -> None:
    batch = torch.ones(2, 3), np.arange(2), np.zeros(2, np.int64)
    assert PolishObjective(Constant(2), Constant(10), weight=0.5)(*batch) == 7
    assert PolishObjective(Constant(2), Constant(torch.nan), weight=0)(*batch) == 2
    objective = PolishObjective(Constant(2), Constant(10), weight=1)
    assert objective.figures() == {"watched": 2}
    assert objective.after_step(0, lambda positions: np.zeros((0, 3))) == []


def test_polishing_starts_where_l2_ended(shop: Shop, polishing: PolishConfig) -> None:
    work = shop.context
    start = train_unified(work, [shop.own], name="start", config=work.recipe.unify)
    still = replace(polishing.labels, loop=replace(polishing.labels.loop, learning_rate=1e-9, weight_decay=0))
    config = replace(work.recipe.unify, polish=replace(polishing, labels=still))
    same = polish(work, start, [shop.own], name="polished/still", config=config)
    moved = polish(work, start, [shop.own], name="polished/moved", config=replace(config, polish=polishing))
    vectors = [work.source.embed_all(model.embedder, shop.everything) for model in (start, same, moved)]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=0.05)  # running means of the batches move a little
    assert np.abs(vectors[0] - vectors[2]).max() > np.abs(vectors[0] - vectors[1]).max()
    assert same.key != moved.key


@pytest.mark.parametrize("better", [True, False])
def test_a_polished_model_is_kept_only_where_it_is_better(
    catalogue: Catalogue,
    quick: Recipe,
    polishing: PolishConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    better: bool,
) -> None:
    found = comparison(0.1, 0.1, discs="same" if better else "worse")
    monkeypatch.setattr(choice, "_compare", lambda *arguments: found)
    recipe = unify(quick, way="specialists", polish=polishing)
    result = train(catalogue, tmp_path, recipe, report=False)
    decision = result.results["choice"]
    assert [candidate["key"] for candidate in decision["candidates"]] == ["unified_specialists", "unified_polished"]
    assert decision["chosen"] == decision["candidates"][better]["key"]
    published, polished = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("unified", POLISHED))
    assert (published == polished) is better
    keys = [row["key"] for row in result.results["rows"]]
    assert keys == ["base", "specialists", *([] if better else ["unified_polished"]), "unified"]


@pytest.mark.parametrize("way", ["specialists", "ensemble"])
def test_each_way_trains_no_more_than_it_needs(catalogue: Catalogue, quick: Recipe, tmp_path: Path, way: str) -> None:
    of_ensemble = {"members": ("specialists", "joint:proxy-nca"), "choose": False}
    recipe = unify(quick, way=way, **(of_ensemble if way == "ensemble" else {}))
    result = train(catalogue, tmp_path, recipe, report=False)
    assert [row["key"] for row in result.results["rows"]] == ["base", "specialists", "unified"]
    models = {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("model.safetensors")}
    alone = {"specialists/discs", "specialists/squares", "unified", f"candidates/{way}"}
    assert models == alone | ({"members/joint-proxy-nca"} if way == "ensemble" else set())
    ensemble = result.results["ensemble"]
    assert [member["kept"] for member in ensemble["members"]] == [True] * (2 if way == "ensemble" else 1)
    assert set(ensemble["distortion"]) == {"energy_kept", "distance_error", "order_kept"}


def test_joint_members_beyond_the_budget_are_not_trained(catalogue: Catalogue, quick: Recipe, tmp_path: Path) -> None:
    recipe = unify(quick, way="ensemble", members=("specialists", "joint:triplet"), budget=0.1)
    result = train(catalogue, tmp_path, recipe, report=False)
    assert "exceed the budget" in result.results["ensemble"]["members"][1]["reason"]
    assert not list(tmp_path.glob("joint/*"))
    assert not (tmp_path / "members").exists()


def test_a_killed_run_goes_on_and_ends_the_same(
    catalogue: Catalogue, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = unify(quick, members=("specialists", "joint:proxy-nca"), choose=False)
    whole = train(catalogue, tmp_path / "whole", recipe, report=False)
    begun: list[str] = []
    real = loop.fit

    def dies(task: loop.Task, *arguments: object, **named: object) -> object:
        begun.append(task.name)
        if len(begun) == 4:
            raise TrainingError("the power went off")
        return real(task, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("univert.training.run_context.fit", dies)
    with pytest.raises(TrainingError, match="the power went off"):
        train(catalogue, tmp_path / "killed", recipe, report=False)
    finished, begun[:] = begun[:3], [""] * 4
    resumed = train(catalogue, tmp_path / "killed", recipe, report=False)
    assert not set(finished) & set(begun)
    assert resumed.model.fingerprint == whole.model.fingerprint
    begun[:] = [""] * 4
    before = weights(tmp_path / "killed")
    train(catalogue, tmp_path / "killed", recipe, report=False)
    assert (begun, weights(tmp_path / "killed")) == ([""] * 4, before)


@pytest.mark.parametrize("uncertain", ["weighted", "left_out"])
@pytest.mark.parametrize("verticals", [(), ("discs", "squares")])
def test_images_of_unknown_vertical_are_learned_from(
    mixed_up: Catalogue, quick: Recipe, tmp_path: Path, uncertain: str, verticals: tuple[str, ...]
) -> None:
    targets = TargetsConfig(confidence=0.7, uncertain=uncertain)  # type: ignore[arg-type]
    recipe = replace(quick, data=DataConfig(views=2, unsorted=UNSORTED, verticals=verticals))
    recipe = unify(recipe, members=("specialists", "joint:proxy-nca"), choose=False, targets=targets)
    work = RunContext(Run(tmp_path), mixed_up, recipe)
    lost = np.flatnonzero(work.catalogue.column("vertical") == UNSORTED)
    assert work.vertical_names == ["discs", "squares"]
    assert len(lost) == 6
    assert work.is_train[lost].all()
    assert (work.verticals[lost] == -1).all()
    odds = work.vertical_probabilities(lost)
    sure = odds.max(axis=1) >= 0.7
    learned = np.isin(lost, usable(work, recipe.unify))
    np.testing.assert_array_equal(learned, sure if uncertain == "left_out" else True)
    chosen = vertical_weights(work, targets, lost)
    np.testing.assert_array_equal(chosen[sure], np.eye(2)[odds[sure].argmax(axis=1)])
    assert not np.isin(lost, usable(work, replace(recipe.unify, unlabelled=False))).any()
    if verticals:
        return

    result = train(mixed_up, tmp_path, recipe)
    assert (tmp_path / "report.html").exists()
    for row in result.results["rows"]:
        assert set(row["evaluation"]["verticals"]) == {"discs", "squares"}
    rows = learning_targets(work, [specialists(work)], targets).clean(lost)
    np.testing.assert_allclose(np.linalg.norm(rows[learned], axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(rows[~learned], 0)


def test_an_unsorted_vertical_is_checked(
    mixed_up: Catalogue, catalogue: Catalogue, quick: Recipe, tmp_path: Path
) -> None:
    def context(catalogue: Catalogue, name: str, **data: object) -> RunContext:
        config = DataConfig(unsorted=name, **data)  # type: ignore[arg-type]
        return RunContext(Run(tmp_path), catalogue, replace(quick, data=config))

    with pytest.raises(BadInputError, match=r"data\.unsorted: the catalogue has no vertical 'attic'"):
        context(mixed_up, "attic")
    with pytest.raises(BadInputError, match=r"data\.unsorted: the catalogue has no vertical 'attic'"):
        context(mixed_up, "attic", verticals=("discs",))
    with pytest.raises(BadInputError, match=r"data\.unsorted: 30 images of 'discs' have a product"):
        context(catalogue, "discs")
    with pytest.raises(BadInputError, match="'unsorted' is the catalogue's only vertical"):
        context(mixed_up.select(vertical=UNSORTED), UNSORTED)


def test_no_specialist_or_no_training_images_is_said_before_training(shop: Shop) -> None:
    work = shop.context
    with pytest.raises(BadInputError, match="no specialist for: discs, squares"):
        Member.of_specialists(work, {})
    bare = RunContext(work.run, work.catalogue, work.recipe)
    bare.__dict__["is_train"] = work.is_train & ~work.of_vertical("discs")
    with pytest.raises(BadInputError, match="too few labelled training images to learn from in: discs"):
        bare.refuse_small_verticals()


def test_a_catalogue_without_test_queries_is_refused_before_training(
    catalogue: Catalogue, quick: Recipe, tmp_path: Path
) -> None:
    message = "the test split needs a product with two images to measure on, got 0 labelled images"
    with pytest.raises(BadInputError, match=message):
        train(catalogue.select(split=["train", "val"]), tmp_path, quick)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_l2_towards_wider_and_narrower_specialists(shop: Shop) -> None:
    work = shop.context
    for member in (shop.mixed, shop.wide):
        trained = train_unified(work, [member], name=f"sizes/{member.width}", config=work.recipe.unify)
        assert trained.embedder.size == 8
    targets = learning_targets(work, [shop.wide], TargetsConfig())
    objective = TargetObjective(TargetL2Loss(), targets)
    assert np.isfinite(float(objective(torch.ones(4, 8), np.flatnonzero(work.is_train)[:4], np.arange(4) % 3)))
