"""The engines give the model's own vectors, whichever runs, and the ONNX file is only ever whole and the model's."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from univert.core.errors import BadInputError
from univert.models.embedder import Embedder, EmbedderConfig
from univert.models.runtime import engine as engines
from univert.models.runtime import onnx_export
from univert.models.runtime.engine import as_pixels, export_ahead, load_engine, prepare_image, share_of_cores
from univert.models.runtime.onnx_engine import OnnxEngine
from univert.models.runtime.onnx_export import ONNX_FILE, ExportError, ensure_onnx, export_onnx, source_key
from univert.models.runtime.torch_engine import TorchEngine


@pytest.fixture(scope="module")
def saved(model: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.save_pretrained(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def exported(saved: Path) -> Path:
    return ensure_onnx(saved)


@pytest.fixture
def quick_export(exported: Path, monkeypatch: pytest.MonkeyPatch) -> list[Embedder]:
    """Exports take their graph from the one that is there; what is given out lists the models exported."""
    models: list[Embedder] = []

    def give(model: Embedder) -> onnx.ModelProto:
        models.append(model)
        return onnx.load(exported)

    monkeypatch.setattr(onnx_export, "_to_onnx", give)
    return models


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


def test_torch_engine_is_embed_bit_for_bit(model: Embedder, photos: list[Image.Image]) -> None:
    engine = TorchEngine(model)
    batch = np.stack([engine.prepare(photo) for photo in photos])
    assert np.array_equal(engine.run(batch), model.embed(photos))


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_prepare_is_the_models_preprocessing_bit_for_bit(fit: str, photos: list[Image.Image]) -> None:
    config = EmbedderConfig(
        base_network="timm/test_resnet",
        pretrained=False,
        image_size_px=48,
        fit=fit,  # type: ignore[arg-type]
        background_rgb=(10, 20, 30),
        centre_share=0.9,
    )
    preprocessing = config.preprocessing()
    for photo in photos:
        assert np.array_equal(prepare_image(preprocessing, photo), preprocessing(photo).transpose(2, 0, 1))


@pytest.mark.parametrize("batch", [0, 1, 3, 40])
def test_any_batch_size_gives_the_same_vectors(exported: Path, batch: int) -> None:
    engine = OnnxEngine(exported)
    images = np.random.default_rng(1).integers(0, 256, (batch, 3, 64, 64), dtype=np.uint8)
    alone = [engine.run(images[i : i + 1])[0] for i in range(batch)]
    together = engine.run(images)
    assert together.shape == (batch, engine.size)
    assert np.allclose(together, np.array(alone).reshape(batch, engine.size), atol=1e-5)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_floats_from_0_to_1_are_the_pixels_they_stand_for(exported: Path) -> None:
    engine = OnnxEngine(exported)
    pixels = np.random.default_rng(2).integers(0, 256, (2, 3, 64, 64), dtype=np.uint8)
    assert np.array_equal(engine.run(pixels.astype(np.float32) / 255), engine.run(pixels))


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (np.zeros((3, 64, 64), np.uint8), "shape"),
        (np.zeros((1, 3, 64, 32), np.uint8), "shape"),
        (np.zeros((1, 3, 64, 64), np.int64), "uint8"),
        (np.full((1, 3, 64, 64), np.nan, np.float32), "finite"),
        (np.full((1, 3, 64, 64), 255.0), "divide by 255"),
    ],
)
def test_what_is_no_batch_of_pixels_is_refused(batch: np.ndarray, says: str) -> None:
    with pytest.raises(BadInputError, match=says):
        as_pixels(batch, 64)


@pytest.mark.parametrize("image", [Image.new("RGBA", (4, 4)), Image.new("L", (4, 4)), Image.new("RGB", (0, 4))])
def test_prepare_wants_decoded_rgb(exported: Path, image: Image.Image) -> None:
    with pytest.raises(BadInputError, match="decode_rgb"):
        OnnxEngine(exported).prepare(image)


def test_the_file_is_kept_and_made_anew_for_another_model(saved: Path, exported: Path, tmp_path: Path) -> None:
    assert exported == saved / ONNX_FILE
    before = exported.stat().st_mtime_ns
    assert ensure_onnx(saved).stat().st_mtime_ns == before
    retrained = tmp_path / "retrained"
    other = Embedder(EmbedderConfig(base_network="timm/test_resnet", pretrained=False, size=8, image_size_px=64))
    other.save_pretrained(retrained)
    (retrained / ONNX_FILE).write_bytes(exported.read_bytes())  # left from the model that was here before
    engine = load_engine(retrained, "onnx", threads=1)
    assert (engine.fingerprint, engine.size) == (other.fingerprint, 8)
    assert list(retrained.glob(".*")) == []


def test_a_damaged_file_is_made_anew(
    exported: Path, tmp_path: Path, model: Embedder, quick_export: list[Embedder]
) -> None:
    copy = tmp_path / "model"
    model.save_pretrained(copy)
    (copy / ONNX_FILE).write_bytes(exported.read_bytes()[:-1000])
    assert load_engine(copy, threads=1).name == "onnx"
    assert len(quick_export) == 1


def test_who_waited_for_anothers_export_does_not_even_load_the_model(
    exported: Path, tmp_path: Path, model: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, cache = model.save_pretrained(tmp_path / "model"), tmp_path / "cache"
    loads: list[Path] = []
    from_pretrained = Embedder.from_pretrained
    monkeypatch.setattr(Embedder, "from_pretrained", lambda path: (loads.append(path), from_pretrained(path))[1])
    cache.mkdir()
    waiter = threading.Thread(target=ensure_onnx, args=(copy,), kwargs={"cache": cache})
    with (cache / f"{source_key(copy)}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiter.start()
        waiter.join(0.3)
        assert waiter.is_alive()
        (copy / ONNX_FILE).write_bytes(exported.read_bytes())
    waiter.join(10)
    assert not waiter.is_alive()
    assert loads == []


def test_there_is_nothing_to_export_ahead(
    saved: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(command: list[str], **options: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(engines.subprocess, "run", start)
    export_ahead(saved)
    export_ahead(tmp_path / "nothing", "torch")
    with pytest.raises(AssertionError, match="was started"):
        export_ahead(tmp_path / "nothing")


def test_a_file_of_unknown_origin_is_refused(exported: Path, tmp_path: Path) -> None:
    stripped = onnx.load(exported)
    del stripped.metadata_props[:]
    onnx.save(stripped, tmp_path / "plain.onnx")
    with pytest.raises(BadInputError, match="export again"):
        OnnxEngine(tmp_path / "plain.onnx")
    with pytest.raises(BadInputError, match=r"nothing\.onnx"):
        OnnxEngine(tmp_path / "nothing.onnx")


def test_a_read_only_models_file_goes_to_the_cache(
    model: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_export: list[Embedder]
) -> None:
    folder = model.save_pretrained(tmp_path / "model")
    writable = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path) != folder and writable(path, mode)
    )  # root may write everywhere, so permissions alone would not do
    cache = tmp_path / "cache"
    path = ensure_onnx(folder, cache=cache)
    assert path.parent.parent == cache
    assert not (folder / ONNX_FILE).exists()
    assert ensure_onnx(folder, cache=cache) == path
    assert load_engine(folder, cache=cache).fingerprint == model.fingerprint
    assert len(quick_export) == 1


def test_an_export_that_differs_is_refused_and_leaves_no_file(
    model: Embedder, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = onnx.load(exported)
    weights = next(tensor for tensor in right.graph.initializer if tensor.name.endswith("head.second.weight"))
    values = onnx.numpy_helper.to_array(weights) * np.linspace(1, 1.01, 16, dtype=np.float32)[:, None]
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    monkeypatch.setattr(onnx_export, "_to_onnx", lambda model: right)
    with pytest.raises(ExportError, match="differ from PyTorch's"):
        export_onnx(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_auto_falls_back_to_torch_where_export_fails(
    saved: Path, tmp_path: Path, model: Embedder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    copy = model.save_pretrained(tmp_path / "model")

    def fail(model: Embedder) -> None:
        raise ExportError("no such operator")

    monkeypatch.setattr(onnx_export, "_to_onnx", fail)
    assert load_engine(copy, threads=1).name == "torch"
    assert "no such operator" in caplog.text
    with pytest.raises(ExportError, match="no such operator"):
        load_engine(copy, "onnx", threads=1)


def test_an_exported_model_loads_without_torch(saved: Path, exported: Path) -> None:
    program = (
        "import sys; from univert.models.runtime.engine import load_engine; "
        f"assert load_engine({str(saved)!r}).name == 'onnx'; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)


def test_what_cannot_be_loaded_is_said(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="engine must be one of"):
        load_engine(saved, "tensorrt")  # type: ignore[arg-type]
    with pytest.raises(BadInputError, match="threads"):
        load_engine(saved, threads=0)
    with pytest.raises(BadInputError, match="no such model folder"):
        load_engine(tmp_path / "nothing")
    with pytest.raises(BadInputError, match="--int8 CATALOGUE"):
        load_engine(saved, "onnx-int8")


def test_workers_share_the_cores() -> None:
    usable = share_of_cores(1)
    assert usable >= 1
    assert share_of_cores(10 * usable) == 1
    with pytest.raises(BadInputError, match="workers"):
        share_of_cores(0)


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
    engine = OnnxEngine(export_onnx(Embedder(config).eval(), tmp_path))
    assert engine.run(np.zeros((5, 3, side, side), np.uint8)).shape == (5, engine.size)
