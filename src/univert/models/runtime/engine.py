"""What turns photos into unit vectors while serving: ONNX Runtime where the model was exported, else PyTorch."""

from __future__ import annotations

import importlib.util
import logging
import os
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from univert.core.errors import BadInputError
from univert.data.transforms import Preprocessing
from univert.models.runtime.pixels import prepare_image

EngineKind = Literal["auto", "onnx", "onnx-int8", "torch"]
"""`auto` takes ONNX Runtime where the model was exported, else PyTorch; `onnx-int8` wants a quantised model."""

ONNX_FILE, INT8_FILE = "model.onnx", "model-int8.onnx"

_log = logging.getLogger(__name__)


class Engine(Protocol):
    """A model made ready for queries: `prepare` one photo a time, `run` several together.

    Both may be called from any thread. Neither depends on what else is in the batch beyond the last bits.

    Attributes:
        name: the kind of engine: `onnx`, `onnx-int8` or `torch`.
        size: length D of a vector.
        fingerprint: of the model: equal fingerprints mean comparable vectors.
        preprocessing: the model's own way from an upright image to the square.
    """

    name: str
    size: int
    fingerprint: str
    preprocessing: Preprocessing

    @property
    def image_size_px(self) -> int:
        """Side S of the square that the network sees."""
        return self.preprocessing.image_size_px

    def prepare(self, image: Image.Image) -> UInt8[np.ndarray, "3 S S"]:
        """An upright RGB image, as `univert.data.decode.decode_rgb` gives it, as what the network sees."""
        return prepare_image(self.preprocessing, image)

    def run(self, batch: UInt8[np.ndarray, "B 3 S S"]) -> Float[np.ndarray, "B D"]:
        """Unit vectors of prepared images, float32.

        Raises:
            BadInputError: see `univert.models.runtime.pixels.check_pixels`.
        """
        ...


def load_engine(
    model_path: str | Path, kind: EngineKind = "auto", *, threads: int | None = None, workers: int = 1
) -> Engine:
    """Make a saved model ready for queries, and run it once, so that the first query is not the slowest.

    With ONNX Runtime, PyTorch is not even imported. The file it needs is made when a model is published, and by
    `univert export`.

    Args:
        model_path: a model folder, or, for PyTorch, `OWNER/NAME` on the Hugging Face hub.
        kind: which engine.
        threads: threads that one `run` computes with; None shares the cores among the workers.
        workers: how many processes serve on this machine.

    Raises:
        BadInputError: no such model or kind, fewer than one thread or worker, or `onnx` or `onnx-int8` was asked for
            and the folder has no such file, or one of another model.

    Example:
        >>> engine = load_engine("runs/shop/unified")  # doctest: +SKIP
        >>> vectors = engine.run(engine.prepare(photo)[None])  # doctest: +SKIP
    """
    if kind not in get_args(EngineKind):
        raise BadInputError(f"engine must be one of {', '.join(get_args(EngineKind))}, got {kind!r}")
    threads = share_of_cores(workers) if threads is None else threads
    if threads < 1:
        raise BadInputError(f"threads must be at least 1, got {threads}; leave it out to share the cores")
    engine = _load(Path(model_path), kind, threads)
    blank = np.zeros((2, 3, engine.image_size_px, engine.image_size_px), np.uint8)
    engine.run(blank[:1])
    engine.run(blank)
    return engine


def export_published(model_folder: str | Path) -> str | None:
    """Make the ONNX file of a model that has just been published, where the extra `serve` is installed.

    Args:
        model_folder: where the model is.

    Returns:
        a line that says why ONNX cannot express the model, so that it is served with PyTorch; None if all is well.
    """
    if not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript")):
        return None
    from univert.models.runtime.onnx_export import ExportError, export_onnx

    try:
        export_onnx(model_folder)
    except ExportError as error:
        return f"{model_folder}: {error}"
    return None


def share_of_cores(workers: int) -> int:
    """Threads for each of several processes on this machine, such that together they fill its cores."""
    if workers < 1:
        raise BadInputError(f"workers must be at least 1, got {workers}")
    return max(1, len(os.sched_getaffinity(0)) // workers)


def _load(model_path: Path, kind: EngineKind, threads: int) -> Engine:
    path = model_path / (INT8_FILE if kind == "onnx-int8" else ONNX_FILE)
    there = path.is_file()
    if kind == "torch" or (kind == "auto" and not there):
        from univert.models.embedder import Embedder
        from univert.models.runtime.torch_engine import TorchEngine

        model = Embedder.from_pretrained(str(model_path))
        if kind == "auto":
            advice = "%s has no %s, so it runs on PyTorch, which is slower; export it with: univert export %s"
            _log.warning(advice, model_path, ONNX_FILE, model_path)
        return TorchEngine(model, threads=threads)
    if not there:
        options = " --int8 CATALOGUE" if kind == "onnx-int8" else ""
        raise BadInputError(f"{model_path} has no {path.name}; make it with: univert export {model_path}{options}")
    try:
        from univert.models.runtime.onnx_engine import OnnxEngine
    except ImportError as error:
        raise BadInputError(
            f"the engine {kind} needs a package that is missing ({error.name}): pip install 'univert[serve]'"
        ) from None
    return OnnxEngine(path, threads=threads)
