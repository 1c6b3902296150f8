"""The unified model: its ways, images of unknown vertical, sizes, and a run that was killed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.drawn import drawn_rows
from tests.training.shop import Shop, specialists
from univert.core.errors import BadInputError
from univert.core.run import Run
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.rows import SourceRow
from univert.losses.target_l2_loss import TargetL2Loss
from univert.main_job import train
from univert.report.page import report_run
from univert.training.combine.config import CombineConfig
from univert.training.objectives import TargetObjective
from univert.training.recipe import DataConfig, EvaluationConfig, Recipe
from univert.training.run_context import RunContext
from univert.training.targets.config import UnifyConfig
from univert.training.targets.learning_targets import learning_targets, vertical_weights
from univert.training.unify import images_to_learn_from

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


def quick(recipe: Recipe, **unify: object) -> Recipe:
    """Every vertical by itself, no rivals, and a few steps."""
    loop = replace(recipe.unify.loop, min_steps=4, evaluations=2)
    return replace(
        recipe,
        data=DataConfig(views=1),
        combine=CombineConfig(mode="off"),
        specialists=replace(recipe.specialists, loop=replace(recipe.specialists.loop, min_steps=4, evaluations=2)),
        unify=replace(recipe.unify, loop=loop, **unify),  # type: ignore[arg-type]
        evaluation=EvaluationConfig(baselines=(), resamples=20, bounds_images=0),
    )


@pytest.mark.parametrize("way", ["specialists", "ensemble"])
def test_each_way_trains_no_more_than_it_needs(catalogue: Catalogue, recipe: Recipe, tmp_path: Path, way: str) -> None:
    members = {"members": ("specialists", "joint:proxy-nca")} if way == "ensemble" else {}
    result = train(catalogue, tmp_path, quick(recipe, way=way, **members), report=False)
    joint = ["joint_proxy_nca"] if way == "ensemble" else []
    assert [row["key"] for row in result.results["rows"]] == ["base", "specialists", *joint, "unified"]
    models = {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("model.safetensors")}
    specialists = {f"{folder}/{name}" for folder in ("last_step", "specialists") for name in ("discs", "squares")}
    alone = specialists | {"unified", f"candidates/{way}"}
    assert models == alone | ({"joint/proxy_nca"} if joint else set())
    ensemble = result.results["ensemble"]
    assert [member["name"] for member in ensemble["members"]] == list(members.get("members", ("specialists",)))
    assert ensemble["distortion"]["energy_kept"] == pytest.approx(1, abs=0.1)


def test_images_of_unknown_vertical_are_learned_from(mixed_up: Catalogue, recipe: Recipe, tmp_path: Path) -> None:
    recipe = quick(recipe, members=("specialists", "joint:proxy-nca"), confidence=0.7)
    recipe = replace(recipe, data=DataConfig(views=1, unsorted=UNSORTED, verticals=("discs", "squares")))
    work = RunContext(Run(tmp_path), mixed_up, recipe)
    lost = np.flatnonzero(work.images.catalogue.column("vertical") == UNSORTED)
    assert work.images.vertical_names == ["discs", "squares"]
    assert len(lost) == 6
    assert work.images.is_train[lost].all()
    assert (work.images.verticals[lost] == -1).all()
    assert np.isin(lost, images_to_learn_from(work, recipe.unify)).all()
    assert not np.isin(lost, images_to_learn_from(work, replace(recipe.unify, unlabelled=False))).any()
    odds = work.features.vertical_probabilities(lost)
    sure = odds.max(axis=1) >= 0.7
    chosen = vertical_weights(work, recipe.unify, lost)
    np.testing.assert_array_equal(chosen[sure], np.eye(2)[odds[sure].argmax(axis=1)])

    result = train(mixed_up, tmp_path, recipe, report=False)
    report_run(result.finished)
    assert (tmp_path / "report.html").exists()
    assert all(set(row["evaluation"]["verticals"]) == {"discs", "squares"} for row in result.results["rows"])
    rows = learning_targets(work, [specialists(work)], recipe.unify).clean(lost)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_an_unsorted_vertical_is_checked(
    mixed_up: Catalogue, catalogue: Catalogue, recipe: Recipe, tmp_path: Path
) -> None:
    cases = [
        (mixed_up, DataConfig(unsorted="attic"), r"data\.unsorted: the catalogue has no vertical 'attic'"),
        (mixed_up, DataConfig(unsorted="attic", verticals=("discs",)), "the catalogue has no vertical 'attic'"),
        (catalogue, DataConfig(unsorted="discs"), r"data\.unsorted: 30 images of 'discs' have a product"),
        (mixed_up.select(vertical=UNSORTED), DataConfig(unsorted=UNSORTED), "is the catalogue's only vertical"),
    ]
    for images, data, message in cases:
        with pytest.raises(BadInputError, match=message):
            RunContext(Run(tmp_path), images, replace(recipe, data=data))


def test_fixed_targets_are_those_of_the_image_as_it_is(shop: Shop) -> None:
    targets = learning_targets(shop.context, [shop.own], UnifyConfig(align=False))
    positions, views = np.flatnonzero(shop.context.images.is_train)[:4], np.arange(4) % 3
    fixed, consistent = (TargetObjective(TargetL2Loss(), targets, consistent=flag) for flag in (False, True))
    embeddings = torch.eye(8)[:4]
    expected = float(TargetL2Loss()(embeddings, torch.from_numpy(targets.clean(positions))))
    assert float(fixed(embeddings, positions, views)) == pytest.approx(expected)
    assert float(consistent(embeddings, positions, views)) != pytest.approx(expected)
