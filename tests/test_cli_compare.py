"""`univert compare` as a person and a program see it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import Univert
from univert.cli.kept_vectors import embed_once
from univert.cli.measuring import embed_with
from univert.core.config import from_plain
from univert.core.errors import BadInputError
from univert.data.catalogue import Catalogue
from univert.metrics.compare import Comparison
from univert.models.embedder import Embedder, EmbedderConfig
from univert.training.recipe import Recipe


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


@pytest.fixture(scope="module")
def places(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its specialists, and a run whose model sees hardly anything."""
    root = tmp_path_factory.mktemp("runs")
    torch.manual_seed(0)
    model = Embedder(replace(recipe.model, size=None, hidden_sizes=())).eval()
    for name in ("good/unified", "good/specialists/discs", "good/specialists/squares"):
        model.save_pretrained(root / name)
    blind = Embedder(recipe.model).eval()
    with torch.no_grad():
        for parameter in blind.head.parameters():
            parameter.mul_(0).add_(1.0)
    blind.save_pretrained(root / "blind" / "unified")
    for name in ("good", "blind"):
        (root / name / "groups.json").write_text('{"groups": [["discs"], ["squares"]]}')
    return root


def comparison_in(values: dict[str, object]) -> Comparison:
    return from_plain(Comparison, {name: value for name, value in values.items() if name not in ("split", "worse")})


def test_a_worse_model_is_exit_1(places: Path, catalogue: Catalogue, univert: Univert) -> None:
    arguments = (places / "good", places / "blind", catalogue.path, "--split", "all", "--resamples", 500)
    status, shown, error = univert("compare", *arguments)
    assert status == 1
    assert "worse" in shown
    assert error.count("\n") == 1
    assert "blind is worse in: " in error
    status, shown, _ = univert("compare", *arguments, "--json")
    values = json.loads(shown)
    assert status == 1
    assert values["split"] == "all"
    assert "merged" in values["worse"]
    found = comparison_in(values)
    assert found.merged["recall_at_1"].verdict == "worse"
    assert f"is worse in: {', '.join(values['worse'])}\n" in error
    status, shown, error = univert("compare", places / "blind", places / "good", *arguments[2:])
    assert (status, error) == (0, "")
    assert "better" in shown
    status, _, _ = univert("compare", *arguments, "--tolerance", 0.99)
    assert status == 0


def test_specialists_search_their_own_vertical(places: Path, catalogue: Catalogue, univert: Univert) -> None:
    arguments = (catalogue.path, "--split", "all", "--json")
    status, shown, _ = univert("compare", places / "good", places / "good" / "specialists", *arguments)
    assert status == 0
    found = comparison_in(json.loads(shown))
    assert all(each["recall_at_1"].difference == 0 for each in found.verticals.values())
    merged = found.merged["recall_at_1"]
    within = sum(each["recall_at_1"].second * each["recall_at_1"].queries for each in found.verticals.values())
    assert merged.second == pytest.approx(within / merged.queries)
    status, shown, _ = univert("compare", places / "good", places / "good", *arguments, "--vertical", "discs")
    assert list(json.loads(shown)["verticals"]) == ["discs"]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_model_is_embedded_once_and_measured_beside_its_untrained_network(
    catalogue: Catalogue, tmp_path: Path, univert: Univert, monkeypatch: pytest.MonkeyPatch, batch_norm: bool
) -> None:
    model = Embedder(EmbedderConfig(image_size_px=32, size=4, hidden_sizes=(), batch_norm=batch_norm)).eval()
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.fill_(1.0)
    model.save_pretrained(tmp_path / "model")
    arguments = (catalogue.path, "--split", "test", "--json")
    status, shown, _ = univert("evaluate", tmp_path / "model", *arguments)
    values = json.loads(shown)
    assert status == 0
    assert values["untrained"]["merged"]["map_at_r"]["value"] > values["merged"]["map_at_r"]["value"]

    def embed(*_: object, **__: object) -> None:
        raise AssertionError("it was embedded before")

    monkeypatch.setattr(Embedder, "embed_catalogue", embed)
    assert univert("evaluate", tmp_path / "model", *arguments)[:2] == (0, shown)
    assert univert("compare", tmp_path / "model", tmp_path / "model", *arguments)[0] == 0


@pytest.mark.parametrize(("most_bytes", "left"), [(10_000, 2), (800, 1), (0, 0)])
def test_what_is_kept_has_a_limit(
    catalogue: Catalogue, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_bytes: int, left: int
) -> None:
    monkeypatch.setattr("univert.cli.kept_vectors.MOST_BYTES", most_bytes)
    model = Embedder(recipe.model).eval()
    for vertical in catalogue.verticals:
        embed_once(model, catalogue.select(vertical=vertical, split="test"))
    assert len(list((tmp_path / "caches" / "univert" / "embeddings").iterdir())) == left


def saved(recipe: Recipe, folder: Path, *, size: int = 8, seed: int = 0) -> Embedder:
    torch.manual_seed(seed)
    model = Embedder(replace(recipe.model, size=size)).eval()
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("sizes", [(4, 8), (8, 4)])
def test_specialists_embed_their_own_vertical_whatever_their_size(
    catalogue: Catalogue, recipe: Recipe, tmp_path: Path, sizes: tuple[int, int]
) -> None:
    models = {
        name: saved(recipe, tmp_path / name, seed=seed, size=sizes[seed])
        for seed, name in enumerate(catalogue.verticals)
    }
    saved(recipe, tmp_path / "discs+squares", seed=2)  # a group's, which does not count here
    vectors, routed = embed_with(tmp_path, catalogue, "cpu")
    assert routed
    assert vectors.shape == (72, 8)
    for name, model in models.items():
        here = catalogue.column("vertical") == name
        own = model.embed_catalogue(catalogue.select(vertical=name))
        np.testing.assert_allclose(vectors[here, : model.size], own, atol=1e-6)
        assert (vectors[here, model.size :] == 0).all()


def test_a_selection_needs_the_specialists_of_its_own_verticals(
    catalogue: Catalogue, recipe: Recipe, tmp_path: Path
) -> None:
    model = saved(recipe, tmp_path / "discs")
    discs = catalogue.select(vertical="discs")
    np.testing.assert_allclose(embed_with(tmp_path, discs, "cpu")[0], model.embed_catalogue(discs), atol=1e-6)
    with pytest.raises(BadInputError, match=r"neither a model, nor a run, .* it has none for: squares"):
        embed_with(tmp_path, catalogue, "cpu")
    with pytest.raises(BadInputError, match="no images"):
        embed_with(tmp_path, catalogue.select(vertical="discs", split="test", labelled=False), "cpu")


def test_brands_never_seen(places: Path, catalogue: Catalogue, tmp_path: Path, univert: Univert) -> None:
    """From a catalogue built with some brands out of train to a row of `evaluate`, and one of `compare`."""
    shop = tmp_path / "shop.lance"
    assert univert("catalogue", "build", catalogue.path, shop, "--unseen-brands", 0.5)[0] == 0
    shown = univert("catalogue", "info", shop)[1]
    assert "brands that train never has: 1 in val (6 images), 1 in test (6 images)" in shown
    assert "images in no split" not in shown
    shown = univert("evaluate", places / "good", shop)[1]
    assert "brands never seen" in shown
    values = json.loads(univert("evaluate", places / "good", shop, "--json")[1])
    assert values["unseen_brands"]["queries"] == 6
    assert json.loads(univert("evaluate", places / "good", catalogue.path, "--json")[1])["unseen_brands"] is None
    assert "brands never seen" in univert("compare", places / "good", places / "blind", shop)[1]
    status, _, error = univert("catalogue", "build", catalogue.path, shop, "--unseen-brands", 2, "--overwrite")
    assert (status, error.count("\n")) == (2, 1)
    assert "the share must lie between 0 and 1, got 2; try 0.2" in error
