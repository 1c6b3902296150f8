"""The engines give the model's own vectors, whichever runs, and the ONNX file is only ever whole and the model's."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from univert.core.errors import BadInputError
from univert.models.embedder import Embedder, EmbedderConfig
from univert.models.runtime import onnx_export
from univert.models.runtime.engine import ONNX_FILE, OnnxEngine, check_pixels, load_engine
from univert.models.runtime.onnx_export import ExportError, export_onnx, export_published
from univert.models.runtime.torch_engine import TorchEngine


@pytest.fixture(scope="module")
def exported(model_folder: Path) -> Path:
    return model_folder / ONNX_FILE


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """Photos of several sizes and aspects."""
    rng = np.random.default_rng(5)
    sizes = [(90, 60), (60, 90), (64, 64), (300, 20), (1, 1)]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def test_both_engines_give_what_embed_gives(model: Embedder, exported: Path, photos: list[Image.Image]) -> None:
    expected = model.embed(photos)
    for engine in (OnnxEngine(exported), TorchEngine(model)):
        batch = np.stack([engine.prepare(photo) for photo in photos])
        vectors = engine.run(batch)
        assert vectors.dtype == np.float32
        assert np.abs(vectors - expected).max() < 1e-5
        assert (engine.size, engine.fingerprint) == (model.size, model.fingerprint)
        assert engine.preprocessing == model.preprocessing
    assert np.array_equal(vectors, expected), "PyTorch's bit for bit"


@pytest.mark.parametrize("batch", [0, 1, 3, 40])
def test_any_batch_size_gives_the_same_vectors(exported: Path, batch: int) -> None:
    engine = OnnxEngine(exported)
    images = np.random.default_rng(1).integers(0, 256, (batch, 3, 64, 64), dtype=np.uint8)
    alone = [engine.run(images[i : i + 1])[0] for i in range(batch)]
    together = engine.run(images)
    assert together.shape == (batch, engine.size)
    assert np.allclose(together, np.array(alone).reshape(batch, engine.size), atol=1e-5)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(("shape", "kind"), [((3, 64, 64), "u1"), ((1, 3, 64, 32), "u1"), ((1, 3, 64, 64), "f4")])
def test_what_is_no_batch_of_pixels_is_refused(shape: tuple[int, ...], kind: str) -> None:
    with pytest.raises(BadInputError, match=r"batch must be uint8 of shape \(B, 3, 64, 64\)"):
        check_pixels(np.zeros(shape, kind), 64)


def test_a_file_of_another_model_or_of_none_is_refused_and_made_again(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrained = tmp_path / "retrained"
    other = Embedder(EmbedderConfig(base_network="timm/test_resnet", pretrained=False, size=16, image_size_px=64))
    other.save_pretrained(retrained)
    (retrained / ONNX_FILE).write_bytes(exported.read_bytes())  # left from the model that was here before
    with pytest.raises(BadInputError, match="of another model than the one beside it; make it again with: univert exp"):
        load_engine(retrained, threads=1)
    (retrained / ONNX_FILE).write_bytes(exported.read_bytes()[:-1000])
    with pytest.raises(BadInputError, match=r"model\.onnx"):
        load_engine(retrained, threads=1)
    stripped = onnx.load(exported)
    del stripped.metadata_props[:]
    onnx.save(stripped, retrained / ONNX_FILE)
    with pytest.raises(BadInputError, match="not an ONNX model that this version"):
        OnnxEngine(retrained / ONNX_FILE)
    monkeypatch.setattr(onnx_export, "to_onnx", lambda *arguments: onnx.load(exported))
    with pytest.raises(ExportError, match="differ from PyTorch's"):
        export_onnx(retrained)


def test_an_export_that_is_there_is_kept(exported: Path) -> None:
    before = exported.stat().st_mtime_ns
    assert export_onnx(exported.parent) == exported
    assert exported.stat().st_mtime_ns == before
    with pytest.raises(BadInputError, match="no such model folder"):
        export_onnx(exported.parent / "nothing")


def test_an_export_that_differs_is_refused_and_leaves_no_file(
    model: Embedder, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = onnx.load(exported)
    weights = next(tensor for tensor in right.graph.initializer if tensor.name.endswith("head.second.weight"))
    values = onnx.numpy_helper.to_array(weights) * np.linspace(1, 1.01, 16, dtype=np.float32)[:, None]
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    monkeypatch.setattr(onnx_export, "to_onnx", lambda *arguments: right)
    folder = model.save_pretrained(tmp_path / "model")
    with pytest.raises(ExportError, match="differ from PyTorch's"):
        export_onnx(folder)
    said = export_published(folder)
    assert said.startswith(f"{folder}: the exported model's vectors differ from PyTorch's")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert export_published(folder) is None, "nothing serves here, so nothing is said"
    assert not (folder / ONNX_FILE).exists()


def test_without_an_export_it_runs_on_torch_and_says_how_to_export(
    model: Embedder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = model.save_pretrained(tmp_path / "model")
    assert load_engine(folder, threads=1).name == "torch"
    assert f"export it with: univert export {folder}" in caplog.text
    assert not (folder / ONNX_FILE).exists()
    for kind in ("onnx", "onnx-int8"):
        with pytest.raises(BadInputError, match="make it with: univert export"):
            load_engine(folder, kind, threads=1)  # type: ignore[arg-type]


def test_what_cannot_be_loaded_is_said(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="engine must be one of"):
        load_engine(model_folder, "tensorrt")  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="threads"):
        load_engine(model_folder, threads=0)
    with pytest.raises(BadInputError, match="no such model folder"):
        load_engine(tmp_path / "nothing")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "side", "pooling"),
    [
        ("efficientnet_lite0", 64, "gem"),
        ("inception_v2", 96, "max"),
        ("timm/test_vit", 160, "avg"),
        ("timm/test_efficientnet", 64, "gem"),
    ],
)
def test_every_kind_of_network_exports(network: str, side: int, pooling: str, tmp_path: Path) -> None:
    config = EmbedderConfig(
        base_network=network,
        pretrained=False,
        image_size_px=side,
        pooling=pooling,  # type: ignore[arg-type]
        size=None if network == "timm/test_vit" else 16,
    )
    engine = OnnxEngine(export_onnx(Embedder(config).save_pretrained(tmp_path / "model")))
    assert engine.run(np.zeros((5, 3, side, side), np.uint8)).shape == (5, engine.size)
