import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.grow.conftest import four_verticals, train_old
from tests.training.shop import modified
from univert.core.errors import BadInputError
from univert.core.run import Run
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.models.embedder import Embedder
from univert.training.grow import growing as module
from univert.training.grow import learning
from univert.training.grow.growing import GrowResult, grow
from univert.training.grow.lineage import Lineage, deployed_model
from univert.training.recipe import DataConfig, Recipe


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock" and "grown" not in path.parts
    }


def nearness(shop: Catalogue, vertical: str, *folders: Path) -> float:
    """Mean cosine of two models' vectors of the test images of a vertical."""
    images = shop.select(split="test", vertical=vertical)
    first, second = (Embedder.from_pretrained(folder).embed_catalogue(images) for folder in folders)
    return float((first * second).sum(axis=1).mean())


def test_a_growth_from_end_to_end(four: Catalogue, trained: Path, grown: GrowResult) -> None:
    run_path = grown.path.parent.parent
    assert deployed_model(trained) == trained / "unified"
    assert grown.published
    assert grown.reason == "no loss on the validation images beyond chance and tolerance"
    assert grown.path == run_path / "grown/1-hats"
    assert deployed_model(run_path) == grown.model_path == grown.index_model_path
    for name in ("specialists/hats/model.safetensors", "unified/README.md", "grow.json", "log/unified"):
        assert (grown.path / name).exists(), name
    assert "hats, recall_at_1, test | " in (grown.model_path / "README.md").read_text()
    assert set(grown.figures) == {"val", "test"}
    assert set(grown.figures["val"].kept.verticals) == {"discs", "hats", "squares"}
    old, new = (Embedder.from_pretrained(run_path / name) for name in ("unified", "grown/1-hats/unified"))
    assert grown.compatible_models == (old.fingerprint, new.fingerprint)
    stored = json.loads((run_path / "growth.json").read_text())
    assert stored["growths"][0]["vectors_of"] == dict.fromkeys(("discs", "squares"), old.fingerprint)
    expected = nearness(four, "squares", run_path / "unified", grown.model_path)
    assert grown.figures["test"].nearness["squares"] == pytest.approx(expected, abs=1e-4)

    before = modified(run_path)
    again = grow(run_path, four, "hats")
    assert modified(run_path) == before, "a published growth was done again"
    assert again == replace(grown, reason="it was published before")


def test_a_second_growth_is_held_to_the_vectors_that_were_indexed(four: Catalogue, grown_path: Path) -> None:
    result = grow(grown_path, four, "rings")
    lineage = Lineage.read(grown_path)
    first, second, third = lineage.models
    assert lineage.vectors_of() == {"discs": first, "squares": first, "hats": second, "rings": third}
    assert result.path == grown_path / "grown/2-rings"
    expected = nearness(four, "discs", lineage.models[first], lineage.models[third])
    assert result.figures["test"].nearness["discs"] == pytest.approx(expected, abs=1e-4)


def test_an_index_made_anew_changes_what_is_held(four: Catalogue, grown: GrowResult, grown_path: Path) -> None:
    second = grown.model_fingerprint
    result = grow(grown_path, four, "rings", indexed_by=second)
    growth = Lineage.read(grown_path).growths[-1]
    assert growth.vectors_of == dict.fromkeys(("discs", "squares", "hats"), second)
    assert result.compatible_models == (second, growth.model_fingerprint)
    looked_up = grow(grown_path, four, "hats", indexed_by=growth.model_fingerprint)
    assert looked_up.index_model_path == result.model_path
    with pytest.raises(BadInputError, match="the index was made with model stranger"):
        grow(grown_path, four, "rings", indexed_by="stranger")


def test_a_loss_is_not_published_unless_forced(
    four: Catalogue, run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(run_path)
    monkeypatch.setattr(module, "refusal_of", lambda figures, limit: "discs lost 9.9 points of R@1")
    refused = grow(run_path, four, "hats")
    assert not refused.published
    assert "discs lost" in refused.reason
    assert contents(run_path) == before, "a growth that is not published must change nothing else"
    assert deployed_model(run_path) == run_path / "unified"
    trained = modified(run_path)
    forced = grow(run_path, four, "hats", force=True)
    assert forced.published
    assert modified(run_path) == trained, "forcing trains nothing again"
    assert forced.reason.startswith("forced: discs lost")
    assert Lineage.read(run_path).growths[0].forced


def test_unlabelled_old_images_hold_the_vectors_but_prove_nothing(run_path: Path, tmp_path: Path) -> None:
    rows = [row if row.vertical == "hats" else replace(row, product=None) for row in four_verticals()]
    build_catalogue(iter(rows), tmp_path / "bare.lance")
    result = grow(run_path, tmp_path / "bare.lance", "hats")
    assert not result.published
    assert "discs, squares" in result.reason
    assert grow(run_path, tmp_path / "bare.lance", "hats", force=True).published


def test_a_learning_base_network_grows_too(four: Catalogue, recipe: Recipe, tmp_path: Path) -> None:
    train_old(
        four, replace(recipe, base_network_learns="last_blocks", last_blocks=1, data=DataConfig(views=1)), tmp_path
    )
    result = grow(tmp_path, four, "hats", settings=["specialists.size=12"])  # wider than the deployed model
    old, new = (Embedder.from_pretrained(folder).state_dict() for folder in (tmp_path / "unified", result.model_path))
    moved = [name for name in old if name.startswith("base_network.") and not old[name].equal(new[name])]
    assert moved
    assert not any("conv_stem" in name for name in moved)


def test_bad_input(four: Catalogue, run_path: Path, tmp_path: Path) -> None:
    cases = [
        (run_path, four, "discs", [], "was trained on discs; name a vertical that is new"),
        (run_path, four, "shoes", [], "no images of shoes; it has discs, hats, rings, squares"),
        (run_path, four.select(vertical=["discs", "hats"]), "hats", [], "no training images of squares, and"),
        (run_path, four.select(split=["val", "test"]), "hats", [], "no training images of discs, squares"),
        (run_path, four.select(labelled=False), "hats", [], "too few labelled training images to learn hats"),
        (run_path, four, "hats", ["model.image_size_px=64"], "image_size_px must be the deployed"),
        (run_path, four, "hats", ["grow.tolerence=0.1"], "did you mean grow.tolerance"),
        (tmp_path / "nowhere", four, "hats", [], "is not a finished run"),
    ]
    for path, catalogue, vertical, settings, message in cases:
        with pytest.raises(BadInputError, match=message):
            grow(path, catalogue, vertical, settings=settings)
    assert not (tmp_path / "nowhere").exists()
    assert not (run_path / "growth.json").exists()
    with Run(run_path).locked(), pytest.raises(BadInputError, match="another process"):
        grow(run_path, four, "hats")


def test_the_sampler_keeps_the_share() -> None:
    new, old = np.arange(5), np.arange(5, 100)
    sampler = learning.GrowthSampler(new, old, batch_size=12, seed=0)
    assert (sampler.batch_size, sampler.steps_per_epoch) == (12, 8)
    batches = [sampler.batch(step) for step in range(40)]
    assert all((batch < 5).sum() == 4 for batch in batches)
    assert set(np.concatenate(batches).tolist()) == set(range(100))
    assert (sampler.batch(7) == batches[7]).all()
