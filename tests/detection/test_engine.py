from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.detection.rooms import VERTICALS, drawn_scene, encoded
from univert.core.errors import BadInputError
from univert.detection.config import DetectorConfig
from univert.detection.engine import OutputForm, load_detector
from univert.detection.model import make_detector

PHOTOS = [drawn_scene(number, size)[0] for number, size in enumerate([(96, 72), (300, 200), (50, 120)])]


def test_onnx_finds_what_pytorch_finds(saved: Path, tmp_path: Path) -> None:
    unexported = Path(shutil.copytree(saved, tmp_path / "model", ignore=shutil.ignore_patterns("*.onnx")))
    exported, torch_ = load_detector(saved), load_detector(unexported)
    assert (exported.name, torch_.name) == ("onnx", "torch")
    assert exported.fingerprint == torch_.fingerprint
    for first, second in zip(*(one.detect(PHOTOS, least_score=0.1) for one in (exported, torch_)), strict=True):
        assert len(first) == len(second) > 0
        assert [item.vertical for item in first] == [item.vertical for item in second]
        for one, other in zip(first, second, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-4)
            assert one.box_xyxy_px == pytest.approx(other.box_xyxy_px, abs=0.1)


def test_found_boxes_lie_in_the_photo_and_come_surest_first(saved: Path) -> None:
    detector = load_detector(saved)
    for photo, items in zip(PHOTOS, detector.detect(PHOTOS, least_score=0.01), strict=True):
        assert 0 < len(items) <= 100
        assert [item.score for item in items] == sorted((item.score for item in items), reverse=True)
        for item in items:
            x0, y0, x1, y1 = item.box_xyxy_px
            assert 0 <= x0 < x1 <= photo.width
            assert 0 <= y0 < y1 <= photo.height
    assert detector.detect([]) == []
    assert detector.detect(PHOTOS[:1], least_score=1.0) == [[]]


def test_an_exported_detector_runs_without_pytorch(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(encoded(PHOTOS[0]))
    code = f"""
import sys
from univert.detection import load_detector
load_detector({str(saved)!r}).detect_files([{str(tmp_path / "photo.png")!r}])
print([name for name in ("torch", "torchvision", "timm") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "of another model"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"no"), "model.onnx"),
        (lambda folder: shutil.rmtree(folder), "no such detector; give the folder of one"),
        (lambda folder: [path.unlink() for path in folder.glob("model.*")], "incomplete"),
    ],
)
def test_what_is_wrong_with_a_detector_is_said(saved: Path, tmp_path: Path, change: Any, message: str) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "model"))
    change(folder)
    with pytest.raises(BadInputError, match=message):
        load_detector(folder)


def test_no_pickle_and_a_card(saved: Path) -> None:
    files = {path.name: path for path in saved.iterdir()}
    assert sorted(files) == ["README.md", "config.json", "model.onnx", "model.safetensors"]
    assert "object-detection" in files["README.md"].read_text()
    assert json.loads(files["config.json"].read_text())["config"]["verticals"] == list(VERTICALS)


def foreign_onnx(
    path: Path,
    form: str,
    *,
    kind: int = TensorProto.FLOAT,
    batched: bool = False,
    photo: tuple[int, ...] = (1, 3, 64, 64),
    times: tuple[float, float] = (1, 1),
) -> Path:
    """A detector that always gives the same three answers, of which the last is not sure.

    `times`: factors of its boxes and scores.
    """
    boxes = np.array([[8, 8, 16, 24], [32, 0, 64, 32], [0, 0, 4, 4]], np.float32)
    scores, labels = np.array([0.6, 0.9, 0.1], np.float32), np.array([1, 0, 1], np.int64)
    boxes, scores = (np.float32(factor) * each for factor, each in zip(times, (boxes, scores), strict=True))
    outputs = {"boxes": boxes, "scores": scores, "labels": labels}
    if form == "rows":
        outputs = {"rows": np.column_stack([boxes, scores, labels]).astype(np.float32)}
    if batched:
        outputs = {name: value[None] for name, value in outputs.items()}
    nodes = [helper.make_node("Constant", [], [n], value=numpy_helper.from_array(v)) for n, v in outputs.items()]
    infos = [
        helper.make_tensor_value_info(n, TensorProto.INT64 if v.dtype == np.int64 else TensorProto.FLOAT, v.shape)
        for n, v in outputs.items()
    ]
    given = helper.make_tensor_value_info("photo", kind, photo)
    graph = helper.make_graph(nodes, "detector", [given], infos)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    path.with_suffix(".json").write_text(json.dumps({"format": form, "verticals": VERTICALS}))
    return path


@pytest.mark.parametrize("form", ["boxes-scores-labels", "rows"])
@pytest.mark.parametrize(("kind", "batched"), [(TensorProto.FLOAT, False), (TensorProto.UINT8, True)])
def test_anothers_onnx_detector_stands_in(tmp_path: Path, form: OutputForm, kind: int, batched: bool) -> None:
    path = foreign_onnx(tmp_path / "other.onnx", form, kind=kind, batched=batched)
    (items,) = load_detector(path).detect(PHOTOS[:1])
    assert [(item.vertical, round(item.score, 2)) for item in items] == [("discs", 0.9), ("squares", 0.6)]
    assert items[1].box_xyxy_px == pytest.approx((12, 9, 24, 27))  # of 96 x 72 px, seen as 64 x 64


@pytest.mark.parametrize("photo", [(1, 1, 64, 64), (4, 3, 64, 64), (1, 64, 64, 3), (3, 64, 64)])
def test_another_detector_takes_one_photo(tmp_path: Path, photo: tuple[int, ...]) -> None:
    path = foreign_onnx(tmp_path / "other.onnx", "rows", photo=photo)
    with pytest.raises(BadInputError, match="its input must be one photo"):
        load_detector(path)


@pytest.mark.parametrize("times", [(1 / 64, 1), (1, 5)])
def test_another_detectors_units_are_looked_at(tmp_path: Path, times: tuple[float, float]) -> None:
    detector = load_detector(foreign_onnx(tmp_path / "other.onnx", "rows", times=times))
    with pytest.raises(BadInputError, match="scores must go from 0 to 1, and boxes be in pixels"):
        detector.detect(PHOTOS[:1])


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (None, r"say what it gives in .*other\.json, for example"),
        ("[]", "say what it gives in"),
        ('{"format": "rows"}', "verticals: Field required"),
        ('{"format": "xywh", "verticals": ["discs"]}', "'boxes-scores-labels' or 'rows', got 'xywh'"),
        ('{"format": "rows", "vertical": ["discs"]}', "did you mean verticals?"),
        ('{"format": "rows", "verticals": ["discs", "discs"]}', "given twice"),
        ('{"format": "rows", "verticals": []}', "verticals"),
        ('{"format": "boxes-scores-labels", "verticals": ["discs"]}', "has 3 outputs; this one has 1"),
    ],
)
def test_another_detector_must_be_as_stated(tmp_path: Path, said: str | None, message: str) -> None:
    path = foreign_onnx(tmp_path / "other.onnx", "rows")
    if said is None:
        path.with_suffix(".json").unlink()
    else:
        path.with_suffix(".json").write_text(said)
    with pytest.raises(BadInputError, match=message):
        load_detector(path)


def test_another_detectors_pixels_are_bytes_or_floats(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="bytes or 32-bit floats"):
        load_detector(foreign_onnx(tmp_path / "half.onnx", "rows", kind=TensorProto.FLOAT16))


def test_a_detector_of_torchvision_stands_in(tmp_path: Path) -> None:
    config = DetectorConfig(network="ssdlite320_mobilenet_v3_large", verticals=VERTICALS, image_size_px=96)
    torch.manual_seed(0)
    model = make_detector(config)
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    target = {"boxes": torch.tensor([[4.0, 4, 60, 60]]), "labels": torch.tensor([2])}
    terms = model.train().losses(images, [target, target])
    assert terms.isfinite().all()
    terms.sum().backward()
    assert sum(parameter.grad is not None for parameter in model.parameters()) > 100
    folder = model.save_pretrained(tmp_path / "model")
    detector = load_detector(folder)
    assert detector.name == "torch"
    assert all(item.vertical in VERTICALS for item in detector.detect(PHOTOS[:1], least_score=0.0)[0])
    with pytest.raises(BadInputError, match="torchvision has no 'ssd_lite320'"):
        make_detector(DetectorConfig(network="ssd_lite320", verticals=VERTICALS))
    with pytest.raises(BadInputError, match="torchvision has no 'maskrcnn_resnet50_fpn'"):
        make_detector(DetectorConfig(network="maskrcnn_resnet50_fpn", verticals=VERTICALS))
