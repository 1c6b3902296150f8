"""The items in a photo: found, cut out, each answered as a search with its box is."""

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser.shop import look, scene
from tests.conftest import Univert
from tests.data.pictures import encoded
from tests.serving.served import Client
from tests.serving.small_models import QUARTERS
from univert.core.errors import BadInputError
from univert.data.decode import ImageParts, decode_rgb
from univert.data.headers import read_header
from univert.detection.engine import load_detector
from univert.identity.vote import AttributeCalibration, Calibration
from univert.models.embedder import Embedder
from univert.serving import server
from univert.serving.settings import Settings, load_settings

ROOM = scene()


def test_the_small_detector_finds_what_is_there(detector: Path) -> None:
    found = load_detector(detector)
    room = Image.open(io.BytesIO(ROOM))
    (items,) = found.detect([room])
    assert [item.vertical for item in items] == ["bags", "lamps", "shoes", "bags"]
    assert items[1].box_xyxy_px == pytest.approx((460, 30, 700, 270), abs=0.1)
    room.paste("white", (0, 0, 400, 300))
    assert [item.vertical for item in found.detect([room])[0]] == ["lamps", "shoes", "bags"]
    assert found.detect([look(0, 1)]) == [[]]


def test_each_item_is_answered_as_a_search_with_its_box(
    client: Client, detector: Path, model: Embedder, tmp_path: Path
) -> None:
    sure = AttributeCalibration(temperature=0.05, weights=(5.0, 0, 0, 0, 0), precision=0.9, threshold=0.5)
    calibration = Calibration(
        model_fingerprint=model.fingerprint, engine="onnx", neighbours=3, attributes={"vertical": sure}
    )
    calibration.save(tmp_path / "calibration.json")
    served = client(detector=str(detector), calibration=str(tmp_path / "calibration.json"))
    room = Image.open(io.BytesIO(ROOM))
    large = encoded(room.resize((2000, 1500)), "JPEG")
    for content in (ROOM, large, encoded(room.convert("RGBA"), compress_level=1)):

        def ask(content: bytes = content, **fields: str) -> Any:
            answer = served.post("/search", files={"photo": content}, data={"k": "5", **fields})
            assert answer.status_code == 200, answer.text
            return answer.json()

        found = ask()
        width, height = found["query"]["width_px"], found["query"]["height_px"]
        assert found["detector"] == load_detector(detector).fingerprint
        assert [item["vertical"] for item in found["items"]] == ["bags", "lamps", "shoes", "bags"]
        assert [round(item["score"], 2) for item in found["items"]] == [0.9, 0.8, 0.7, 0.6]
        plain = ask(items="0")
        assert (plain["items"], plain["detector"]) == ([], None)
        same = ("query", "hits", "identity", "model")
        assert [plain[name] for name in same] == [found[name] for name in same]
        for item, quarter in zip(found["items"], QUARTERS, strict=True):
            box = item["box_xyxy_px"]
            assert box == pytest.approx([side * (width, height)[n % 2] for n, side in enumerate(quarter)], abs=1)
            alone = ask(box=",".join(map(str, box)))
            assert alone["query"]["box_xyxy_px"] == box
            assert alone["items"] == []
            assert alone["hits"] == item["hits"]
            assert alone["identity"] == item["identity"]
    assert len(ask(items="2")["items"]) == 2
    assert set(found["took_ms"]) == {"decode", "detect", "embed", "search", "identify", "total"}
    assert found["took_ms"]["detect"] > 0
    shoes = ask(vertical="shoes")
    assert {hit["vertical"] for item in shoes["items"] for hit in item["hits"]} == {"shoes"}
    assert [item["identity"] for item in shoes["items"]] == [item["identity"] for item in found["items"]]
    like = served.post("/search", files={"like": (None, "p4-1")}).json()
    assert (like["items"], like["detector"]) == ([], None)
    metrics = served.get("/metrics").text
    assert 'univert_stage_seconds_count{stage="detect"}' in metrics


def test_detect_gives_boxes_alone(client: Client, detector: Path) -> None:
    served = client(detector=str(detector))
    found = served.post("/detect", files={"photo": ROOM}).json()
    whole = served.post("/search", files={"photo": ROOM}).json()
    assert (found["width_px"], found["height_px"], found["model"]) == (800, 600, whole["detector"])
    for one, named in zip(found["items"], whole["items"], strict=True):
        assert one == {name: named[name] for name in one}
    nothing = served.post("/detect", files={"photo": encoded(look(0, 1))}).json()
    assert nothing["items"] == []
    assert served.post("/detect", files={"photo": b"no"}).json()["type"] == "/problems/unsupported-type"
    assert served.post("/detect", files={"photo": ROOM}, data={"box": "1,2,3,4"}).status_code == 422
    assert "/detect" in served.get("/openapi.json").json()["paths"]


def test_without_a_detector_there_are_no_items(client: Client) -> None:
    served = client()
    found = served.post("/search", files={"photo": ROOM}).json()
    assert (found["items"], found["detector"]) == ([], None)
    assert served.post("/detect", files={"photo": ROOM}).status_code == 404
    assert "/detect" not in served.get("/openapi.json").json()["paths"]


@pytest.mark.parametrize("items", ["25", "-1", "1.5", "many"])
def test_how_many_items_is_a_small_whole_number(client: Client, items: str) -> None:
    answer = client().post("/search", files={"photo": ROOM}, data={"items": items})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/validation")


@pytest.mark.parametrize("given", [[], ["detector"], ["run"]])
def test_the_detector_of_a_run_is_served(
    univert: Univert, detector: Path, given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MODEL", "INDEX", "DETECTOR"):
        monkeypatch.setenv(f"UNIVERT_{name}", "put back when the test is over")
    monkeypatch.delenv("UNIVERT_DETECTOR")
    served = list[Settings]()
    monkeypatch.setattr(server, "run_server", served.append)
    run, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(detector, run / "detector")
    shutil.copytree(detector, other / "detector")
    option = {"detector": other / "detector", "run": other}
    status, _, err = univert("serve", run, "index", *(part for one in given for part in ("--detector", option[one])))
    assert (status, err) == (0, "")
    assert served[0].detector == (other if given else run) / "detector"


def test_a_detector_that_is_not_there_is_told() -> None:
    with pytest.raises(BadInputError, match=r"^settings: detector: must be the folder of a detector.*'nowhere'"):
        load_settings(model="m", index="i", detector="nowhere")


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_parts_are_those_that_decoding_each_gives(format_name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 404, 3), dtype=np.uint8))
    content = encoded(picture, format_name, exif=exif)
    header = read_header(content)
    parts = ImageParts(content)
    width, height = header.width_px, header.height_px
    for box in (None, (0, 0, width, height), (10.5, 20.0, 250, 290.5), (3, 3, 40, 60), (0, 0, width - 1, height)):
        for draft_px in (None, 16, 60):
            alone = decode_rgb(content, box_xyxy_px=box, draft_px=draft_px)
            part = parts.part(box, draft_px=draft_px)
            assert np.array_equal(np.asarray(part), np.asarray(alone))
