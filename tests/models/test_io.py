"""Models on disk: what is saved comes back, and whatever is wrong with a folder is said in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import univert
from univert.core.errors import BadInputError
from univert.models.card import ModelCard
from univert.models.embedder import Embedder, EmbedderConfig

CONFIG = EmbedderConfig(
    base_network="timm/test_resnet",
    pretrained=False,
    pooling="gem",
    hidden_sizes=(12, 10),
    size=8,
    batch_norm=True,
    image_size_px=32,
    fit="crop",
    background_rgb=(1, 2, 3),
)


@pytest.fixture(scope="module")
def model() -> Embedder:
    torch.manual_seed(3)
    model = Embedder(CONFIG)
    model.train()(torch.rand(4, 3, 32, 32))  # moves the statistics of the batch normalisations
    return model.eval()


@pytest.fixture(scope="module")
def saved(model: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.save_pretrained(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def test_what_is_saved_comes_back(model: Embedder, saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    before = torch.get_rng_state()
    loaded = univert.Embedder.from_pretrained(str(saved))
    assert torch.equal(torch.get_rng_state(), before)  # loading draws no random numbers
    assert loaded.config == CONFIG
    assert loaded.fingerprint == model.fingerprint
    assert not loaded.training
    image = Image.new("RGB", (40, 30), "orange")
    assert np.array_equal(loaded.embed(image), model.embed(image))
    with torch.no_grad():
        next(loaded.head.parameters())[0, 0] += 1e-3
    assert loaded.fingerprint != model.fingerprint


def test_an_existing_folder_is_kept(model: Embedder, folder: Path) -> None:
    with pytest.raises(BadInputError, match="exists already"):
        model.save_pretrained(folder)
    model.save_pretrained(folder, overwrite=True)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_the_card_states_what_is_known(model: Embedder, saved: Path, tmp_path: Path) -> None:
    card = ModelCard(
        name="Unified",
        recipe_toml="seed = 1\n",
        catalogue_fingerprint="abc",
        verticals=["flags", "food"],
        figures={"recall@1 | merged": 0.51234, "images": 1200, "note": "two\nlines"},
    )
    model.save_pretrained(tmp_path / "model", card)
    text = (tmp_path / "model" / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: univert\n")
    untrained = (saved / "README.md").read_text()
    assert "None were measured." in untrained
    assert "no trained head" in untrained
    for part in (
        "# Unified",
        "verticals (2): flags, food\n- catalogue fingerprint: `abc`",
        "| recall@1 \\| merged | 0.512 |\n| images | 1200 |\n| note | two lines |",
        "```toml\nseed = 1\n```",
        '"image_size_px": 32',
        "unit vector of 8 numbers",
    ):
        assert part in text


def test_there_is_no_such_model(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="revision belongs to models on the hub"):
        Embedder.from_pretrained(saved, revision="v1")
    with pytest.raises(BadInputError, match="no such model folder"):
        Embedder.from_pretrained(tmp_path / "nothing")
    with pytest.raises(BadInputError, match=r"is not a model: it has no config\.json"):
        Embedder.from_pretrained(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match="is a file; pass the model's folder"):
        Embedder.from_pretrained(tmp_path / "file")


def damage_json(text: str) -> Any:
    return lambda folder: (folder / "config.json").write_text(text)


def change_config(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        stored = json.loads((folder / "config.json").read_text())
        for key, value in changes.items():
            (stored if key in stored else stored["config"])[key] = value
        (folder / "config.json").write_text(json.dumps(stored))

    return change


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def replace_weights(folder: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(2)}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_json("{"), r"config\.json cannot be read"),
        (change_config(format=99), "unknown format 99, this version reads 1"),
        (change_config(imagesize_px=32), r"unknown key config.imagesize_px; did you mean config.image_size_px\?"),
        (change_config(size="large"), r"config\.json: config.size"),
        (change_config(size=9), "weights and configuration do not fit"),
        (change_config(weights_fingerprint="0"), r"does not belong to its config\.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"incomplete: it has no model\.safetensors"),
        (truncate, "is damaged"),
        (replace_weights, r"does not belong to its config\.json"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_in_one_line(folder: Path, damage: Any, message: str) -> None:
    damage(folder)
    with pytest.raises(BadInputError, match=message) as caught:
        Embedder.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_a_model_on_the_hub_is_fetched_by_its_three_files(
    saved: Path, model: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def fetch(hub_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        if hub_id == "owner/unreachable":
            raise ConnectionError("no route\nand much more")
        asked.append((hub_id, revision, allow_patterns))
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    loaded = Embedder.from_pretrained("owner/some-model", revision="v1")
    assert loaded.fingerprint == model.fingerprint
    assert asked == [("owner/some-model", "v1", ["config.json", "model.safetensors", "README.md"])]
    with pytest.raises(BadInputError, match=r"owner/unreachable: no such folder here, .*hub: no route$"):
        Embedder.from_pretrained("owner/unreachable")
    with pytest.raises(BadInputError, match="no such model folder"):
        Embedder.from_pretrained(Path("owner/some-model"))
