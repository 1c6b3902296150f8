from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import Univert
from tests.detection.conftest import run_folder as run_folder
from tests.detection.conftest import saved as saved
from tests.detection.conftest import scenes as scenes
from tests.detection.rooms import RECIPE, drawn_scene
from tests.detection.test_engine import foreign_onnx
from univert.core.config import config_to_toml
from univert.data.catalogue import Catalogue


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        drawn_scene(number)[0].save(folder / f"room-{number}.png")
    return folder


def test_from_scenes_to_items(
    scenes: Catalogue, run_folder: Path, photos: Path, tmp_path: Path, univert: Univert, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: object) -> str:
        status, out, err = univert("detect", *arguments)
        assert (status, err) == (0, "")
        return out

    shutil.copytree(run_folder, tmp_path / "run")
    (tmp_path / "recipe.toml").write_text(config_to_toml(RECIPE))
    out = run("train", scenes.path, "--out", tmp_path / "run", "--recipe", tmp_path / "recipe.toml")  # done already
    assert "mAP@50" in out
    model = tmp_path / "run" / "detector"
    assert str(model) in out
    assert json.loads(run("evaluate", model, scenes.path, "--json"))["photos"] == 3
    assert "AP@50, discs" in run("evaluate", tmp_path / "run", scenes.path, "--split", "all")

    places = {name: tmp_path / name for name in ("items.json", "crops", "items.lance", "seen")}
    options = zip(("--out", "--crops", "--catalogue", "--draw"), places.values(), strict=True)
    out = run("run", model, photos, *(part for pair in options for part in pair), "--least-score", 0.05)
    found = json.loads(places["items.json"].read_text())
    count = len(found["annotations"])
    assert f"{count:,} items in 2 photos" in out
    assert count
    assert len(list(places["crops"].rglob("*.jpg"))) == count
    assert len(list(places["seen"].glob("*.jpg"))) == 2
    items = Catalogue.open(places["items.lance"])
    assert len(items) == count
    assert set(items.column("product")) == {None}
    boxes = {tuple(round(side, 1) for side in box or ()) for box in items.boxes(range(count))}
    assert len(boxes) > 1
    assert json.loads(run("run", model, photos / "room-0.png", "--json"))["images"][0]["width"] == 96

    monkeypatch.chdir(tmp_path)
    run("run", model, "photos", "--out", "elsewhere/items.json", "--least-score", 0.05)
    assert univert("catalogue", "build", "elsewhere/items.json", "again.lance")[1] == "again.lance: 2 images\n"

    both = tmp_path / "both.lance"
    status, out, err = univert("catalogue", "build", scenes.path, places["items.lance"], both)
    assert (status, out, err) == (0, f"{both}: 20 images\n", "")
    assert len(Catalogue.open(both)) == count + len(Catalogue.open(scenes.path))


def test_photos_that_cannot_be_used(saved: Path, photos: Path, tmp_path: Path, univert: Univert) -> None:
    def run(*arguments: object) -> tuple[int, str, str]:
        return univert("detect", "run", saved, *arguments)

    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    (photos / "._room-0.png").write_bytes(b"left by another system")
    (photos / "folder.jpg").mkdir()
    status, out, err = run(photos, "--out", tmp_path / "good.json")
    assert status == 2
    assert "in 2 photos" in out, "the others are answered all the same"
    assert len(json.loads((tmp_path / "good.json").read_text())["images"]) == 2
    assert "1 of 3 photos cannot be used" in err
    assert "broken.jpg" in err
    status, out, err = run(photos, "--skip-bad")
    assert status == 0
    assert "in 2 photos" in out
    assert "broken.jpg" in err
    assert run(tmp_path / "nothing.jpg")[0] == 2
    assert run(photos / "room-0.png", "--least-vertical-score", 0.5)[0] == 2
    (tmp_path / "items.json").write_text("{}")
    for option, place in (("--out", tmp_path / "items.json"), ("--crops", photos), ("--draw", photos)):
        status, _, err = run(photos / "room-0.png", option, place)
        assert status == 2
        assert f"{place} exists already; pass --overwrite" in err
    (tmp_path / "empty").mkdir()
    assert run(photos / "room-0.png", "--draw", tmp_path / "empty")[0] == 0
    assert run(photos / "room-1.png", "--draw", tmp_path / "empty", "--overwrite")[0] == 0
    assert len(list((tmp_path / "empty").iterdir())) == 2, "other files of a folder stay"
    status, _, err = run(photos / "room-0.png", "--least-score", 1, "--catalogue", "c.lance", "--draw", tmp_path / "d")
    assert (status, (tmp_path / "d").exists()) == (2, False)
    assert "no item was found that is sure enough" in err
    status, _, err = univert("detect", "train", tmp_path / "no.lance", "--out", tmp_path / "run")
    assert status == 2
    assert "make one with: univert catalogue build" in err


def test_anothers_detector_by_its_format(photos: Path, tmp_path: Path, univert: Univert) -> None:
    path = foreign_onnx(tmp_path / "other.onnx", "rows")
    status, out, err = univert("detect", "run", path, photos)
    assert (status, err) == (0, "")
    assert "discs 0.90, squares 0.60" in out
    path.with_suffix(".json").write_text(json.dumps({"format": "rows", "verticals": ["Möbel & mehr", "a/b"]}))
    assert univert("detect", "run", path, photos, "--crops", tmp_path / "crops")[0] == 0
    assert sorted(folder.name for folder in (tmp_path / "crops").iterdir()) == ["Möbel & mehr", "a%2Fb"]
