"""`univert index`, as a user runs it."""

import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Univert
from tests.drawn import drawn_rows
from tests.serving.small_models import save_small_detector
from univert.data.build import build_catalogue
from univert.detection.engine import load_detector
from univert.identity.vote import AttributeCalibration, Calibration, calibration_places
from univert.models.embedder import Embedder, EmbedderConfig
from univert.search.writer import IndexWriter


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("shop")
    build_catalogue(drawn_rows(), place / "shop.lance")
    config = EmbedderConfig(base_network="timm/test_efficientnet", pretrained=False, image_size_px=32, size=16)
    Embedder(config).save_pretrained(place / "model")
    return place


def test_a_life_of_an_index(place: Path, tmp_path: Path, univert: Univert) -> None:
    index = tmp_path / "shop.index"

    def run(*arguments: object) -> str:
        status, out, err = univert(*arguments)
        assert (status, err) == (0, "")
        return out

    def make(*options: object) -> str:
        return run("index", place / "model", place / "shop.lance", index, *options)

    assert "added), exact search, published as version" in make("--vertical", "discs")
    first = json.loads(run("index", "versions", index, "--json"))
    assert list(first["verticals"]) == ["discs"]
    assert "not published yet" in make("--no-publish")
    text = run("index", "versions", index)
    assert "not published" in text
    assert "vertical     squares" in text
    assert "is published" in run("index", "publish", index)
    again = json.loads(make("--json"))
    assert (again["added"], again["embedded_again"], again["unchanged"]) == (0, 0, again["images"])
    fewer = json.loads(make("--json", "--vertical", "discs", "--delete-missing"))
    assert fewer["deleted"] == 0
    assert "published again, as version" in run("index", "roll-back", index, first["published_version"])
    assert json.loads(run("index", "versions", index, "--json"))["images"] == first["images"]
    assert "recall@3 1.0000 for 36 stored images" in run("index", "check", index, "--k", 3)
    assert json.loads(run("index", "check", index, "--json"))["recall"] == 1
    assert "added" in make("--overwrite")
    assert "not published yet" in make("--overwrite", "--no-publish")
    assert "is published" in run("index", "publish", index)
    with IndexWriter.open(index) as writer:
        writer.start_over(size=writer.size, model_fingerprint=writer.model_fingerprint)

    for arguments, message in (
        (("index", "roll-back", index, 999), "no published version 999 to roll back to; there are:"),
        (("index", "publish", index), "was interrupted: it holds 0 images so far; run the same"),
        (("index", "versions", tmp_path / "nowhere"), "no such index; make one with"),
        (("index", "publish", place / "shop.lance"), "is not an index"),
        (("index", place / "model", place / "shop.lance", "gs://bucket/x"), "s3://bucket/prefix"),
    ):
        status, _, err = univert(*arguments)
        assert status == 2
        assert message in err
        assert err.count("\n") == 1


def test_a_search_with_each_item_of_a_photo(place: Path, tmp_path: Path, univert: Univert) -> None:
    index, photo, page = tmp_path / "shop.index", tmp_path / "room.png", tmp_path / "found.html"
    detector = save_small_detector(tmp_path / "detector")
    room = Image.new("RGB", (120, 120), "white")
    for corner in ((10, 10), (70, 70)):
        room.paste((40, 60, 80), (*corner, corner[0] + 40, corner[1] + 40))
    room.save(photo)
    assert univert("index", place / "model", place / "shop.lance", index)[0] == 0
    found = load_detector(detector).detect_files([photo])[0]

    def run(*options: object) -> str:
        status, out, err = univert("search", place / "model", index, photo, "--detector", detector, *options)
        assert (status, err) == (0, "")
        return out

    assert len(found) == 2
    items = json.loads(run("--json", "--k", 3))
    assert [item["found"]["score"] for item in items] == [item.score for item in found]
    for item in items:
        products = [hit["product"] for hit in item["hits"] if hit["product"] is not None]
        assert len(item["hits"]) == 3
        assert len(products) == len(set(products))
        assert item["identity"] is None
    surely = AttributeCalibration(temperature=1, weights=(9, 0, 0, 0, 0), precision=0.9, threshold=0.5)
    fingerprint = Embedder.from_pretrained(place / "model").fingerprint
    calibration = Calibration(
        model_fingerprint=fingerprint, engine="torch", neighbours=3, attributes={"product": surely}
    )
    calibration.save(calibration_places(index, place / "model")[0])
    assert {item["identity"]["product"]["known"] for item in json.loads(run("--json"))} == {True}
    never = dataclasses.replace(calibration, attributes={"product": dataclasses.replace(surely, threshold=None)})
    never.save(calibration_places(index, place / "model")[0])
    out = run("--out", page)
    assert f"{len(found)} items found" in out
    assert out.count("  no  ") == len(found)
    assert page.read_text().count('class="frame"') == len(found)
    run("--out", page, "--vertical", "discs")
    assert "<dt>searched in</dt><dd>discs</dd>" in page.read_text()


def test_without_an_item_the_whole_photo_is_searched(place: Path, tmp_path: Path, univert: Univert) -> None:
    index, photo, page = tmp_path / "shop.index", tmp_path / "wall.png", tmp_path / "found.html"
    detector = save_small_detector(tmp_path / "detector")
    Image.new("RGB", (120, 120), "white").save(photo)
    assert univert("index", place / "model", place / "shop.lance", index)[0] == 0
    ask = ("search", place / "model", index, photo, "--detector", detector)
    status, out, err = univert(*ask, "--out", page)
    assert (status, err) == (0, "univert: no item found; the whole photo is searched\n")
    assert "10 nearest images" in out
    assert "10 nearest images" in page.read_text()
    assert univert(*ask, "--json")[1] == "[]\n"
    photo.unlink()
    status, _, err = univert(*ask)
    assert (status, "wall.png cannot be read" in err) == (2, True)
