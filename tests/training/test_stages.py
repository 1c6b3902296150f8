import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from tests.drawn import drawn_rows
from tests.training.shop import modified
from univert.core.config import read_settings, to_plain
from univert.core.errors import BadInputError, TrainingError
from univert.core.run import Run
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.rows import SourceRow
from univert.main_job import train
from univert.report.page import report_run
from univert.training.combine.config import CombineConfig
from univert.training.label_config import LabelLoopConfig
from univert.training.label_training import labelled_products
from univert.training.recipe import Baseline, DataConfig, EvaluationConfig, Recipe
from univert.training.run_context import RunContext
from univert.training.unify import images_to_learn_from

BASELINES: tuple[Baseline, ...] = get_args(Baseline)


def only(*baselines: Baseline) -> EvaluationConfig:
    return EvaluationConfig(baselines=baselines, resamples=20)


def short(recipe: Recipe, *baselines: Baseline) -> Recipe:
    """The way of the unified-embedding paper, every vertical by itself, and no more rivals than asked for."""
    unify = replace(recipe.unify, way="specialists")
    return replace(recipe, combine=CombineConfig(mode="off"), unify=unify, evaluation=only(*baselines))


def test_the_main_job_end_to_end(catalogue: Catalogue, recipe: Recipe, tmp_path: Path) -> None:
    result = train(catalogue, tmp_path, replace(recipe, evaluation=only(*BASELINES)))
    keys = [row["key"] for row in result.results["rows"]]
    assert [key for key in keys if key in BASELINES] == list(BASELINES)
    assert (keys[0], keys[1], keys[-1]) == ("base", "specialists", "unified")
    assert set(keys) - set(BASELINES) <= {"base", "specialists", "groups", "unified_ensemble", "unified"}
    files = ["recipe.toml", "groups.json", "evaluation.json", "report.html", "log/candidates"]
    for name in (*files, "unified/README.md", "unified/model.onnx"):
        assert (tmp_path / name).exists(), name
    card = (tmp_path / "unified/README.md").read_text()
    for words in (
        "recall_at_1, test",
        "map_at_r",
        "| training images | ",
        "discs, squares",
        "base_network",
        "[unify.loop]",
    ):
        assert words in card, words
    combination = json.loads((tmp_path / "groups.json").read_text())
    assert combination == result.results["combination"]
    assert sorted(name for group in combination["groups"] for name in group) == ["discs", "squares"]
    assert {path.name for path in (tmp_path / "specialists").iterdir()} >= {"discs", "squares"}
    choice = result.results["choice"]
    assert choice["chosen"] in [candidate["key"] for candidate in choice["candidates"]]
    assert [tried["name"] for tried in result.results["ensemble"]["members"]] == list(recipe.unify.members)
    compared = [comparison["first"] for comparison in result.results["comparisons"]]
    assert [key for key in compared if key != result.results["choice"]["chosen"]] == compared, "not with itself"
    assert {*compared, result.results["choice"]["chosen"]} >= {"specialists", "joint_proxy_nca", "joint_triplet"}
    assert compared[-2:] == ["base", "base"]
    learned = result.results["trained_on"]
    assert learned["images"] <= int(result.finished.context.images.is_train.sum()) < len(catalogue)
    rows = {row["key"]: row for row in result.results["rows"]}
    assert rows["joint_triplet"]["image_presentations"] <= rows["unified_aligned"]["image_presentations"] + 12
    rival, unified = result.finished.models.choice.candidates[-2:]
    assert rival.key == "joint_long"
    assert rival.image_presentations <= unified.image_presentations, "the rival is fair"
    assert rival.model.embedder.config.hidden_sizes == unified.model.embedder.config.hidden_sizes
    assert result.recall_at_1("unified") == rows["unified"]["evaluation"]["merged"]["recall_at"]["1"]["value"]
    with pytest.raises(BadInputError, match=r"'unifed' was not measured .* did you mean 'unified'"):
        result.recall_at_1("unifed")
    cached = result.finished.context.features.source.embed_all(result.model, np.arange(len(catalogue)))
    np.testing.assert_allclose(cached, result.model.embed_catalogue(catalogue), atol=1e-5)
    assert cached.shape == (72, 8)

    before = modified(tmp_path)
    again = train(catalogue, tmp_path)  # without a recipe it goes on with its own
    assert modified(tmp_path) == before, "a finished stage was done again"
    assert {**again.results, "finished": ""} == {**result.results, "finished": ""}


def test_a_change_redoes_only_what_depends_on_it(catalogue: Catalogue, recipe: Recipe, tmp_path: Path) -> None:
    recipe = short(recipe)
    train(catalogue, tmp_path, recipe, report=False)
    before = modified(tmp_path)
    plain = replace(recipe, unify=replace(recipe.unify, align=False))
    train(catalogue, tmp_path, plain, report=False)
    changed = {path for path, time in modified(tmp_path).items() if before[path] != time}
    folders = (tmp_path / "candidates" / "specialists", tmp_path / "unified")
    assert changed == {str(folder / "model.safetensors") for folder in folders}


@pytest.mark.parametrize("learns", ["last_blocks", "all"])
def test_a_learning_base_network_moves(catalogue: Catalogue, recipe: Recipe, tmp_path: Path, learns: str) -> None:
    blocks = {"last_blocks": 1} if learns == "last_blocks" else {}
    recipe = replace(short(recipe), base_network_learns=learns, **blocks)
    result = train(catalogue, tmp_path, recipe, report=False)
    state = result.model.state_dict()
    start = RunContext(Run(tmp_path / "other"), catalogue, recipe).new_embedder().state_dict()
    moved = [name for name in start if name.startswith("base_network.") and not start[name].equal(state[name])]
    stem = [name for name in moved if "conv_stem" in name]
    assert moved
    assert bool(stem) == (learns == "all")


def rebuilt(folder: Path, *changes: Callable[[SourceRow], SourceRow]) -> Catalogue:
    """The drawn catalogue with some of its rows changed."""
    rows = drawn_rows()
    for change in changes:
        rows = map(change, rows)
    build_catalogue(rows, folder / "changed.lance", workers=1)
    return Catalogue.open(folder / "changed.lance")


def with_long_tail(row: SourceRow) -> SourceRow:
    """A product in train and one in test go to a vertical of their own, another product loses all of its names."""
    name = {"squares-0": "tiny", "squares-3": "tiny", "squares-4": "nameless"}.get(str(row.id).rsplit("-", 1)[0])
    return row if name is None else replace(row, vertical=name, product=None if name == "nameless" else row.product)


def test_small_verticals_are_learned_from_and_said(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tail = rebuilt(tmp_path, with_long_tail)
    result = train(tail, tmp_path / "run", short(recipe, "unified_online"), report=False)
    (note,) = result.results["notes"]
    assert note.startswith("no specialist for nameless, tiny: one needs 2 products in train")
    assert note in caplog.messages
    assert "unified_online" in [row["key"] for row in result.results["rows"]]
    assert sorted(result.results["rows"][0]["evaluation"]["verticals"]) == ["discs", "squares"]
    assert [path.name for path in sorted((tmp_path / "run" / "specialists").iterdir())] == ["discs", "squares"]
    images = result.finished.context.images
    learned = images_to_learn_from(result.finished.context, recipe.unify)
    assert {"tiny", "nameless"} <= set(images.names_of(learned))
    everything = np.ones(len(tail), bool)
    labelled = labelled_products(result.finished.context, everything) >= 0
    assert "tiny" in images.names_of(np.flatnonzero(labelled))


def test_variants_say_what_they_learn_from_and_those_that_cannot_differ_are_not_trained(
    catalogue: Catalogue, recipe: Recipe, tmp_path: Path
) -> None:
    recipe = short(recipe, "unified_plain", "unified_labelled")
    recipe = replace(recipe, combine=CombineConfig(groups=(("discs", "squares"),)))
    result = train(catalogue.select(labelled=True), tmp_path, recipe, report=False)
    rows = {row["key"]: row for row in result.results["rows"]}
    assert "unified_labelled" not in rows, "nothing is unlabelled"
    assert rows["unified_plain"]["note"] == "learns from 2 specialists alone, one a vertical, in their own spaces"
    assert rows["unified"]["title"] == "Unified, from one model of all verticals, aligned"
    assert [path.name for path in (tmp_path / "baselines").iterdir()] == ["unified_plain"]


def without_test(row: SourceRow) -> SourceRow:
    return replace(row, split="train" if row.split == "test" else row.split)


def all_train(row: SourceRow) -> SourceRow:
    return replace(row, split="train")


@pytest.mark.parametrize("change", [without_test, all_train])
def test_without_test_or_validation_images_the_rest_is_done_and_said(
    recipe: Recipe, tmp_path: Path, change: Callable[[SourceRow], SourceRow]
) -> None:
    recipe = replace(recipe, evaluation=only("unified_plain"), unify=replace(recipe.unify, members=("specialists",)))
    result = train(rebuilt(tmp_path, change), tmp_path / "run", recipe, report=False)
    assert result.results["rows"] == result.results["comparisons"] == []
    with pytest.raises(BadInputError, match="'unified' was not measured on the test split; nothing was"):
        result.recall_at_1("unified")
    assert not (tmp_path / "run" / "baselines").exists(), "nothing to compare with"
    texts = " ".join(result.results["notes"])
    assert "no product has two images in test, so nothing is measured" in texts
    assert ("no product has two images in val" in texts) == (change is all_train)
    assert (result.results["choice"]["against_specialists"] is None) == (change is all_train)
    if change is without_test:
        return
    report_run(result.finished)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "No product has two images in test, so nothing is measured" in page
    for section, there in (("summary", True), ("choice", True), ("map", True), ("comparison", False)):
        assert (f'id="{section}"' in page) == there, section


def test_where_every_vertical_is_small_they_are_named(recipe: Recipe, tmp_path: Path) -> None:
    nothing = rebuilt(tmp_path, lambda row: replace(row, product=None))
    with pytest.raises(BadInputError, match=r"to learn from: discs \(0 products, 0 images\), squares .* label some"):
        train(nothing, tmp_path / "run", recipe)


def test_an_unknown_vertical_is_named(catalogue: Catalogue, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"no hats; it has discs, squares"):
        train(catalogue, tmp_path, replace(recipe, data=DataConfig(verticals=("hats",))))


def test_one_process_at_a_time(catalogue: Catalogue, recipe: Recipe, tmp_path: Path) -> None:
    with Run(tmp_path).locked(), pytest.raises(BadInputError, match="another process"):
        train(catalogue, tmp_path, recipe)


def test_what_learns_follows_from_device_and_size(catalogue: Catalogue, recipe: Recipe, tmp_path: Path) -> None:
    def settled(**changes: object) -> Recipe:
        left_open = replace(recipe, base_network_learns="auto", **changes)  # type: ignore[arg-type]
        return RunContext(Run(tmp_path), catalogue, left_open, device="cpu").recipe

    assert settled().learns == "last_blocks"
    assert settled(maps_gb=0.0).learns == settled(maps_gb=1e-9).learns == "no"
    assert settled(maps_gb=1e-9).maps_gb == Recipe().maps_gb, "what has no effect any more is not in the run's recipe"
    assert settled().unify.loop == recipe.unify.loop, "what a recipe says is left alone"
    with pytest.raises(BadInputError, match=r"last_blocks must lie in 1\.\.\d+ for this base network, got 99"):
        settled(last_blocks=99)
    frozen, learning = Recipe(base_network_learns="no").settled(), Recipe(base_network_learns="all").settled()
    lengths = [(part.loop.epochs, part.loop.min_steps) for part in (frozen.unify, learning.unify)]
    assert lengths == [(30, 240), (6, 240)]
    assert learning.settled() == learning
    assert (frozen.specialists.loop.min_steps, learning.specialists.loop.min_steps) == (240, 40)


def test_a_begun_run_keeps_what_learns_and_lengths_follow_a_change(
    catalogue: Catalogue, recipe: Recipe, tmp_path: Path
) -> None:
    loop = LabelLoopConfig(learning_rate=1e30, images_per_product=3, batch_size=12)
    specialists = replace(recipe.specialists, loop=loop)
    recipe = replace(recipe, base_network_learns="auto", data=DataConfig(views=1), specialists=specialists)
    with pytest.raises(TrainingError, match=r"lower specialists\.loop\.learning_rate"):
        train(catalogue, tmp_path, recipe, device="cpu", report=False)
    begun, changed = (
        read_settings(Recipe, tmp_path / "recipe.toml", settings) for settings in ([], ["base_network_learns=no"])
    )
    assert (begun.learns, begun.settled().specialists.loop.epochs) == ("last_blocks", 6)
    assert (changed.learns, changed.settled().specialists.loop.epochs) == ("no", 30)
    assert to_plain(changed.unify) == to_plain(recipe.unify), "what a recipe says is left alone"


@pytest.mark.gpu
def test_the_main_job_on_a_gpu(catalogue: Catalogue, recipe: Recipe, tmp_path: Path) -> None:
    result = train(catalogue, tmp_path, replace(recipe, base_network_learns="auto"), device="cuda", report=False)
    assert result.finished.context.recipe.learns == "all"
    positions = np.arange(len(result.finished.context.images.catalogue))
    on_gpu = result.finished.context.features.source.embed_all(result.finished.models.unified.embedder, positions)
    again = RunContext(Run(tmp_path), catalogue, result.finished.context.recipe, device="cpu")
    np.testing.assert_allclose(again.features.source.embed_all(result.model, positions), on_gpu, atol=1e-3)
