from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.drawn import drawn_rows
from tests.metrics.test_compatibility import figures
from tests.metrics.test_compatibility import shop as made_up
from univert.core.config import config_to_toml
from univert.core.errors import BadInputError
from univert.core.records import SourceRow
from univert.core.run import Run
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.models.embedder import Embedder
from univert.training.grow import growing as module
from univert.training.grow.config import GrowConfig
from univert.training.grow.growing import deployed_model, grow
from univert.training.grow.learning import GrowthContext, GrowthSampler
from univert.training.grow.lineage import Lineage
from univert.training.grow.objective import neighbourhood_loss
from univert.training.grow.verdict import refusal_of
from univert.training.recipe import DataConfig, Recipe
from univert.training.run_context import RunContext
from univert.training.specialists import train_on_labels

NEW = ("hats", "rings")


def four_verticals() -> Iterator[SourceRow]:
    """The two drawn verticals, and the same pictures again under two further names."""
    for row in drawn_rows():
        yield row
        name = NEW[row.vertical == "squares"]
        yield replace(
            row,
            id=f"{name}-{row.id}",
            origin=f"{name}-{row.id}",
            vertical=name,
            product=None if row.product is None else f"{name}-{row.product}",
        )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    out = tmp_path_factory.mktemp("shop") / "shop.lance"
    build_catalogue(four_verticals(), out)
    return Catalogue.open(out)


def train_old(shop: Catalogue, recipe: Recipe, path: Path) -> None:
    """What growing needs of a run on the two old verticals: some model of both, its recipe and its groups."""
    recipe = replace(
        recipe,
        data=replace(recipe.data, verticals=("discs", "squares")),
        grow=GrowConfig(loop=recipe.unify.loop, resamples=50, tolerance=0.9, limit=1.0),
    )
    train_on_labels(RunContext(Run(path), shop, recipe), recipe.specialists, name="unified")
    (path / "recipe.toml").write_text(config_to_toml(recipe))
    (path / "groups.json").write_text('[["discs"], ["squares"]]')


@pytest.fixture(scope="module")
def trained(shop: Catalogue, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    train_old(shop, recipe, path)
    return path


@pytest.fixture(scope="module")
def usual(shop: Catalogue, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Fingerprint of the model grown with the default choices."""
    path = tmp_path_factory.mktemp("usual") / "run"
    shutil.copytree(trained, path)
    return grow(path, shop, "hats").model_fingerprint


@pytest.fixture
def run_path(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock" and "grown" not in path.parts
    }


def times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def test_a_growth_from_end_to_end(shop: Catalogue, run_path: Path) -> None:
    assert deployed_model(run_path) == run_path / "unified"
    result = grow(run_path, shop, "hats")
    assert result.published
    assert result.reason == "no loss on the validation images beyond chance and tolerance"
    assert result.path == run_path / "grown/1-hats"
    assert deployed_model(run_path) == result.model_path == result.index_model_path
    for name in ("specialists/hats/model.safetensors", "unified/README.md", "grow.json", "log/unified"):
        assert (result.path / name).exists(), name
    assert "hats, recall_at_1, test | " in (result.model_path / "README.md").read_text()
    assert set(result.figures) == {"val", "test"}
    assert set(result.figures["val"].kept.verticals) == {"discs", "hats", "squares"}
    old, new = (Embedder.from_pretrained(run_path / name) for name in ("unified", "grown/1-hats/unified"))
    assert result.compatible_models == (old.fingerprint, new.fingerprint)
    assert json.loads(json.dumps(result.to_dict()))["published"]
    stored = json.loads((run_path / "growth.json").read_text())
    assert stored["growths"][0]["vectors_of"] == dict.fromkeys(("discs", "squares"), old.fingerprint)

    before = times(run_path)
    again = grow(run_path, shop, "hats")
    assert times(run_path) == before, "a published growth was done again"
    assert again == replace(result, reason="it was published before")


def test_figures_are_those_of_the_saved_models(shop: Catalogue, run_path: Path) -> None:
    result = grow(run_path, shop, "hats")
    squares = shop.select(split="test", vertical="squares")
    old, new = (
        Embedder.from_pretrained(folder).embed_catalogue(squares)
        for folder in (run_path / "unified", result.model_path)
    )
    figures = result.figures["test"]
    assert figures.nearness["squares"] == pytest.approx(float((old * new).sum(axis=1).mean()), abs=1e-4)


def test_three_in_a_row_are_held_to_the_vectors_that_were_indexed(shop: Catalogue, run_path: Path) -> None:
    grow(run_path, shop, "hats")
    result = grow(run_path, shop, "rings")
    lineage = Lineage.read(run_path)
    first, second, third = lineage.models
    assert lineage.vectors_of() == {"discs": first, "squares": first, "hats": second, "rings": third}
    assert result.path == run_path / "grown/2-rings"
    discs = shop.select(split="test", vertical="discs")
    by_first, by_third = (
        Embedder.from_pretrained(lineage.models[name]).embed_catalogue(discs) for name in (first, third)
    )
    nearness = float((by_first * by_third).sum(axis=1).mean())
    assert result.figures["test"].nearness["discs"] == pytest.approx(nearness, abs=1e-4)


def test_an_index_made_anew_changes_what_is_held(shop: Catalogue, run_path: Path) -> None:
    second = grow(run_path, shop, "hats").model_fingerprint
    result = grow(run_path, shop, "rings", indexed_by=second)
    growth = Lineage.read(run_path).growths[-1]
    assert growth.vectors_of == dict.fromkeys(("discs", "squares", "hats"), second)
    assert result.compatible_models == (second, growth.model_fingerprint)
    looked_up = grow(run_path, shop, "hats", indexed_by=growth.model_fingerprint)
    assert looked_up.index_model_path == result.model_path
    with pytest.raises(BadInputError, match="the index was made with model stranger"):
        grow(run_path, shop, "rings", indexed_by="stranger")


def test_a_loss_is_not_published_unless_forced(
    shop: Catalogue, run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(run_path)
    monkeypatch.setattr(module, "refusal_of", lambda figures, limit: "discs lost 9.9 points of R@1")
    refused = grow(run_path, shop, "hats")
    assert not refused.published
    assert "discs lost" in refused.reason
    assert contents(run_path) == before, "a growth that is not published must change nothing else"
    assert deployed_model(run_path) == run_path / "unified"
    trained = times(run_path)
    forced = grow(run_path, shop, "hats", force=True)
    assert forced.published
    assert times(run_path) == trained, "forcing trains nothing again"
    assert forced.reason.startswith("forced: discs lost")
    assert Lineage.read(run_path).growths[0].forced


def test_the_refusal_says_who_lost_and_what_indexing_anew_would_gain() -> None:
    stored, _, _ = made_up(0)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0].astype(np.float32)
    lost = figures(stored, stored @ rotation)
    kept = lost.kept.verticals["tops"]["recall_at_1"]
    message = refusal_of(lost, limit=0.05)
    assert message is not None
    assert f"tops lost {-100 * kept.difference:.1f} points of R@1" in message
    assert f"indexing anew would give {100 * kept.first:.1f}" in message
    assert "old verticals merged lost" in message
    assert refusal_of(figures(stored, stored), limit=0.05) is None
    assert "no validation image is a query" in (refusal_of(None, limit=0.05) or "")


def test_a_kill_is_resumed_to_the_same_model(
    shop: Catalogue, run_path: Path, usual: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter(range(100))
    scorer = GrowthContext.scorer

    def killing(context: GrowthContext, embedder: Embedder, among: np.ndarray | None = None) -> object:
        score = scorer(context, embedder, among)
        assert score is not None
        return lambda: 1 / 0 if among is None and next(looks) == 1 else score()

    with monkeypatch.context() as patch:
        patch.setattr(GrowthContext, "scorer", killing)
        with pytest.raises(ZeroDivisionError):
            grow(run_path, shop, "hats")
    growth = run_path / "grown/1-hats"
    assert not (run_path / "growth.json").exists()
    assert (growth / "checkpoints/unified/checkpoint.safetensors").exists()
    done = times(growth / "specialists")
    assert grow(run_path, shop, "hats").model_fingerprint == usual
    assert times(growth / "specialists") == done


@pytest.mark.parametrize(
    "setting", ["grow.warm_start=false", "grow.neighbours_weight=1", "grow.unlabelled=false", "grow.new_share=0"]
)
def test_every_choice_makes_another_model(shop: Catalogue, run_path: Path, usual: str, setting: str) -> None:
    assert grow(run_path, shop, "hats", settings=[setting]).model_fingerprint != usual


def test_a_member_joins_only_if_it_raises_the_score(shop: Catalogue, run_path: Path) -> None:
    targets = json.loads((grow(run_path, shop, "hats").path / "grow.json").read_text())["targets"]
    scores, members = targets["val_map_at_r"], ["specialist"]
    for name in ("joint", "deployed"):
        tried = " + ".join([*members, name])
        if scores[tried] > scores[" + ".join(members)]:
            members.append(name)
    assert targets["members"] == members
    assert len(scores) == 3


def test_the_sampler_keeps_the_share() -> None:
    new, old = np.arange(5), np.arange(5, 100)
    sampler = GrowthSampler(new, old, new_share=0.25, batch_size=12, seed=0)
    assert (sampler.batch_size, sampler.steps_per_epoch) == (12, 8)
    batches = [sampler.batch(step) for step in range(40)]
    assert all((batch < 5).sum() == 3 for batch in batches)
    assert set(np.concatenate(batches).tolist()) == set(range(100))
    assert (sampler.batch(7) == batches[7]).all()
    few = GrowthSampler(new, old, new_share=0.99, batch_size=4, seed=0)
    assert few.batch_size == 4


def test_a_specialist_of_another_width_is_fitted_to_the_deployed_one(shop: Catalogue, run_path: Path) -> None:
    for size in (4, 12):
        result = grow(run_path, shop, "hats", settings=[f"model.size={size}", "grow.tolerance=0.0"], force=True)
        assert Embedder.from_pretrained(result.model_path).size == 8
        (run_path / "growth.json").unlink()


def test_bad_input(shop: Catalogue, run_path: Path, tmp_path: Path) -> None:
    cases = [
        (run_path, shop, "discs", {}, "was trained on discs; name a vertical that is new"),
        (run_path, shop, "shoes", {}, "no images of shoes; it has discs, hats, rings, squares"),
        (run_path, shop.select(vertical=["discs", "hats"]), "hats", {}, "no images of squares, and without any"),
        (run_path, shop.select(vertical="hats"), "hats", {}, "no images of discs, squares"),
        (run_path, shop.select(split=["val", "test"]), "hats", {}, "no training images of discs, squares"),
        (run_path, shop.select(labelled=False), "hats", {}, "too few labelled training images to learn hats"),
        (run_path, shop, "hats", {"settings": ["model.image_size_px=64"]}, "image_size_px must be the deployed"),
        (run_path, shop, "hats", {"settings": ["grow.wram_start=true"]}, "did you mean grow.warm_start"),
        (run_path, shop, "hats", {"settings": ["grow.align=false"]}, "grow.align must be true where"),
        (tmp_path / "nowhere", shop, "hats", {}, "is not a finished run"),
    ]
    for path, catalogue, vertical, options, message in cases:
        with pytest.raises(BadInputError, match=message):
            grow(path, catalogue, vertical, **options)  # type: ignore[arg-type]
    assert not (tmp_path / "nowhere").exists()
    assert not (run_path / "growth.json").exists()


def test_unlabelled_old_images_hold_the_vectors_but_prove_nothing(
    shop: Catalogue, run_path: Path, tmp_path: Path
) -> None:
    rows = [row if row.vertical == "hats" else replace(row, product=None) for row in four_verticals()]
    build_catalogue(iter(rows), tmp_path / "bare.lance")
    result = grow(run_path, tmp_path / "bare.lance", "hats")
    assert not result.published
    assert "discs, squares" in result.reason
    assert grow(run_path, tmp_path / "bare.lance", "hats", force=True).published


def test_one_process_at_a_time(shop: Catalogue, run_path: Path) -> None:
    with Run(run_path).locked(), pytest.raises(BadInputError, match="another process"):
        grow(run_path, shop, "hats")


def test_a_learning_trunk_grows_too(shop: Catalogue, recipe: Recipe, tmp_path: Path) -> None:
    train_old(
        shop, replace(recipe, base_network_learns="last_blocks", last_blocks=1, data=DataConfig(views=1)), tmp_path
    )
    result = grow(tmp_path, shop, "hats")
    old, new = (Embedder.from_pretrained(folder).state_dict() for folder in (tmp_path / "unified", result.model_path))
    moved = [name for name in old if name.startswith("trunk.") and not old[name].equal(new[name])]
    assert moved
    assert not any("conv_stem" in name for name in moved)


unit_rows = st.integers(0, 10_000).map(
    lambda seed: torch.nn.functional.normalize(
        torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(seed)), dim=2
    ).double()
)


@given(unit_rows, st.floats(0.02, 5))
def test_the_neighbourhood_loss_is_the_divergence(rows: torch.Tensor, temperature: float) -> None:
    embeddings, targets, neighbours = rows
    expected = 0.0
    for embedding, target in zip(embeddings, targets, strict=True):
        p, q = ((vector @ neighbours.T / temperature).softmax(0) for vector in (target, embedding))
        expected += float(torch.sum(torch.where(p > 0, p * (p.log() - q.log()), 0.0))) / len(embeddings)
    loss = float(neighbourhood_loss(embeddings, targets, neighbours, temperature=temperature))
    assert loss == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert float(neighbourhood_loss(targets, targets, neighbours, temperature=temperature)) == pytest.approx(0)
