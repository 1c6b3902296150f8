"""What turns prepared photos into unit vectors while serving: ONNX Runtime where it can be had, else PyTorch."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from univert.core.errors import BadInputError, UnivertError
from univert.data.transforms import Preprocessing

if TYPE_CHECKING:
    from univert.models.embedder import Embedder

EngineKind = Literal["auto", "onnx", "onnx-int8", "torch"]
"""`auto` takes ONNX Runtime and falls back to PyTorch; `onnx-int8` wants a model that was quantised before."""

_log = logging.getLogger(__name__)


class Engine(Protocol):
    """A model made ready for queries: `prepare` one photo a time, `run` several together.

    Both may be called from any thread. Neither depends on what else is in the batch beyond the last bits.
    """

    @property
    def name(self) -> str:
        """The kind of engine: `onnx`, `onnx-int8` or `torch`."""
        ...

    @property
    def size(self) -> int:
        """Length D of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of the model: equal fingerprints mean comparable vectors."""
        ...

    @property
    def image_size_px(self) -> int:
        """Side S of the square that the network sees."""
        ...

    @property
    def preprocessing(self) -> Preprocessing:
        """The model's own way from an upright image to the square."""
        ...

    def prepare(self, image: Image.Image) -> UInt8[np.ndarray, "3 S S"]:
        """An upright RGB image, as `univert.data.decode.decode_rgb` gives it, as what the network sees."""
        ...

    def run(self, batch: UInt8[np.ndarray, "B 3 S S"]) -> Float[np.ndarray, "B D"]:
        """Unit vectors of prepared images, float32."""
        ...


def load_engine(
    model_path: str | Path,
    kind: EngineKind = "auto",
    *,
    threads: int | None = None,
    workers: int = 1,
    cache: Path | None = None,
) -> Engine:
    """Make a saved model ready for queries, and run it once, so that the first query is not the slowest.

    The ONNX file is exported on first use and kept beside the model, see `ensure_onnx`.
    Where it is there already, PyTorch is not even imported.

    Args:
        model_path: a model folder, or `OWNER/NAME` on the Hugging Face hub.
        kind: which engine.
        threads: threads that one `run` computes with; None shares the cores among the workers.
        workers: how many processes serve on this machine.
        cache: where the ONNX file goes if the model's folder is read only; None for the user's cache folder.

    Raises:
        BadInputError: no such model or kind, fewer than one thread or worker, or no quantised model for `onnx-int8`.
        ExportError: `onnx` was asked for and the model cannot be exported exactly; `auto` takes PyTorch instead.

    Example:
        >>> engine = load_engine("runs/shop/unified")  # doctest: +SKIP
        >>> vectors = engine.run(engine.prepare(photo)[None])  # doctest: +SKIP
    """
    if kind not in get_args(EngineKind):
        raise BadInputError(f"engine must be one of {', '.join(get_args(EngineKind))}, got {kind!r}")
    threads = share_of_cores(workers) if threads is None else threads
    if threads < 1:
        raise BadInputError(f"threads must be at least 1, got {threads}; leave it out to share the cores")
    engine = _load(model_path, kind, threads, cache)
    blank = np.zeros((2, 3, engine.image_size_px, engine.image_size_px), np.uint8)
    engine.run(blank[:1])
    engine.run(blank)
    return engine


def export_ahead(model_path: str | Path, kind: EngineKind = "auto", *, cache: Path | None = None) -> None:
    """Make the ONNX file that `load_engine` will want, in a process of its own, if it is not there yet.

    For a service to call before its workers start: none of them then waits, and the gigabyte that an export takes is
    given back. What goes wrong is left for `load_engine` to say.

    Args:
        model_path: as for `load_engine`.
        kind: as for `load_engine`; there is nothing to do but for `auto` and `onnx`.
        cache: as for `load_engine`.
    """
    if kind not in ("auto", "onnx"):
        return
    try:
        from univert.models.runtime.onnx_export import ONNX_FILE, find_onnx, source_key
    except ImportError:
        return
    source = source_key(model_path)
    if source is not None and find_onnx(model_path, source, ONNX_FILE, cache) is not None:
        return
    arguments = [str(model_path), *([str(cache)] if cache is not None else [])]
    subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "univert.models.runtime.onnx_export", *arguments],
        check=False,
        stdout=subprocess.DEVNULL,  # the exporter talks about itself
        stderr=subprocess.DEVNULL,
    )


def share_of_cores(workers: int) -> int:
    """Threads for each of several processes on this machine, such that together they fill its cores.

    Raises:
        BadInputError: fewer than one worker.
    """
    if workers < 1:
        raise BadInputError(f"workers must be at least 1, got {workers}")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, usable // workers)


def prepare_image(preprocessing: Preprocessing, image: Image.Image) -> UInt8[np.ndarray, "3 S S"]:
    """An image as the network sees it: the model's own preprocessing, channels first.

    Raises:
        BadInputError: the image is not RGB, or has no pixels.
    """
    if image.mode != "RGB" or not image.width or not image.height:
        raise BadInputError(
            f"image must be RGB with at least one pixel, got {image.mode} of {image.width} x {image.height}; "
            "decode it with univert.data.decode.decode_rgb"
        )
    return np.ascontiguousarray(preprocessing(image).transpose(2, 0, 1))


def as_pixels(batch: np.ndarray, image_size_px: int) -> UInt8[np.ndarray, "B 3 S S"]:
    """A batch as uint8; floats from 0 to 1 are rounded to it, as `Embedder.embed` does.

    Raises:
        BadInputError: another shape or kind of numbers, or floats that are not pixels.
    """
    wanted = (3, image_size_px, image_size_px)
    if batch.ndim != 4 or batch.shape[1:] != wanted:
        raise BadInputError(f"batch must have shape (B, {', '.join(map(str, wanted))}), got {batch.shape}")
    if batch.dtype == np.uint8:
        return batch
    if not np.issubdtype(batch.dtype, np.floating):
        raise BadInputError(f"batch must hold uint8, or floats from 0 to 1, got {batch.dtype}")
    if batch.size and not 0 <= float(batch.min()) <= float(batch.max()) <= 1:  # false for NaN, too
        raise BadInputError("batch must hold finite floats from 0 to 1; divide by 255, or pass uint8")
    return np.asarray(np.rint(batch * 255.0), np.uint8)


def _load(model_path: str | Path, kind: EngineKind, threads: int, cache: Path | None) -> Engine:
    if kind == "torch":
        return _torch_engine(model_path, threads)
    try:
        from univert.models.runtime.onnx_engine import OnnxEngine
        from univert.models.runtime.onnx_export import ensure_onnx, find_int8

        if kind == "onnx-int8":
            return OnnxEngine(find_int8(model_path, cache=cache), threads=threads)
        return OnnxEngine(ensure_onnx(model_path, cache=cache), threads=threads)
    except ImportError as error:
        if kind != "auto":
            raise BadInputError(
                f"the engine {kind} needs a package that is missing ({error.name}): pip install 'univert[serve]'"
            ) from None
        _log.warning("serving with PyTorch, which is slower: %s; pip install 'univert[serve]'", error)
    except UnivertError as error:
        if kind != "auto" or isinstance(error, BadInputError):
            raise
        _log.warning("serving with PyTorch, which is slower: %s", error)
    return _torch_engine(model_path, threads)


def _torch_engine(model_path: str | Path, threads: int) -> Engine:
    from univert.models.embedder import Embedder
    from univert.models.runtime.torch_engine import TorchEngine

    model: Embedder = Embedder.from_pretrained(model_path)
    return TorchEngine(model, threads=threads)
