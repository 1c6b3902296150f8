"""What turns photos into unit vectors while serving: ONNX Runtime where the model was exported, else PyTorch."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol, get_args

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from univert.core.errors import BadInputError
from univert.core.files import fingerprint
from univert.core.protocols import Images
from univert.data.transforms import Preprocessing

EngineKind = Literal["auto", "onnx", "onnx-int8", "torch"]
"""`auto` takes ONNX Runtime where the model was exported, else PyTorch; `onnx-int8` wants a quantised model."""

ONNX_FILE, INT8_FILE = "model.onnx", "model-int8.onnx"
FORMAT: Final = "1"
INPUT, OUTPUT = "images", "vectors"
METADATA_PREFIX: Final = "univert."
"""Keys of what an exported file says about itself: format, kind, fingerprint, size, preprocessing."""

_SLICE_PX: Final = 8 * 128**2
"""Pixels that go through the network together. Measured on a CPU at 128 px: 8 images take 1.65 ms each, 64 take 2.2,
because the maps between the layers leave the caches, and one alone takes 1.9."""

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
            BadInputError: see `check_pixels`.
        """
        ...

    def embed_catalogue(self, catalogue: Images, batch_size: int = 64) -> Float[np.ndarray, "N D"]:
        """Unit vectors of a catalogue's images, in its order; see `prepared_batches`."""
        batches = prepared_batches(self.preprocessing, catalogue, batch_size)
        return np.concatenate([np.empty((0, self.size), np.float32), *map(self.run, batches)])


class OnnxEngine(Engine):
    """An engine over a file that `univert.models.runtime.onnx_export` wrote.

    Args:
        path: the file, beside the `config.json` of its model.
        threads: threads that one `run` computes with.

    Raises:
        BadInputError: the file is missing, damaged, not one of Univert's, or of another model than the one beside it.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self._session = open_session(path, threads)
        self.about = _read_about(self._session, path)
        self.name = self.about["kind"]
        self.size = int(self.about["size"])
        self.fingerprint = self.about["fingerprint"]
        if self.fingerprint != saved_fingerprint(path.parent):
            raise BadInputError(
                f"{path} is of another model than the one beside it; make it again with: univert export {path.parent}"
            )
        values = json.loads(self.about["preprocessing"])
        self.preprocessing = Preprocessing(**{**values, "background_rgb": tuple(values["background_rgb"])})
        self._slice = max(1, _SLICE_PX // self.image_size_px**2)

    def run(self, batch: UInt8[np.ndarray, "B 3 S S"]) -> Float[np.ndarray, "B D"]:
        """Unit vectors of prepared images, computed in slices that suit a processor's caches."""
        pixels = check_pixels(batch, self.image_size_px)
        vectors = np.empty((len(pixels), self.size), np.float32)
        for start in range(0, len(pixels), self._slice):
            part = np.ascontiguousarray(pixels[start : start + self._slice])
            vectors[start : start + len(part)] = self._session.run([OUTPUT], {INPUT: part})[0]
        return vectors


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


def share_of_cores(workers: int) -> int:
    """Threads for each of several processes on this machine, such that together they fill its cores."""
    if workers < 1:
        raise BadInputError(f"workers must be at least 1, got {workers}")
    return max(1, len(os.sched_getaffinity(0)) // workers)


def open_session(content: Path | bytes, threads: int) -> Any:
    """An inference session on the CPU that leaves cores to others while it waits.

    Raises:
        BadInputError: the file is missing or damaged.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BadInputError(
            f"ONNX Runtime is missing ({error.name}): pip install 'univert[serve]', or take the engine torch"
        ) from None
    onnxruntime.disable_telemetry_events()  # it would keep a database and a device id in the user's cache
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # warnings of the graph optimiser mean nothing to whoever runs a service
    # Threads that spin while they wait take the cores from decoding, from the search and from other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(
            content if isinstance(content, bytes) else str(content),
            sess_options=options,
            providers=["CPUExecutionProvider"],
        )
    except Exception as error:
        # The runtime raises a type of its own for each thing that can be wrong with a file.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInputError(f"{content if isinstance(content, Path) else 'the model'}: {reason}") from None


def saved_fingerprint(model_folder: Path) -> str | None:
    """The fingerprint of a saved model, without reading its weights; None where there is no readable config.json."""
    try:
        stored = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
        return fingerprint(stored["config"], stored["weights_fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def prepare_image(preprocessing: Preprocessing, image: Image.Image) -> UInt8[np.ndarray, "3 S S"]:
    """An image as the network sees it, channels first; raises BadInputError if it is not RGB or has no pixels."""
    if image.mode != "RGB" or not image.width or not image.height:
        raise BadInputError(
            f"image must be RGB with at least one pixel, got {image.mode} of {image.width} x {image.height}; "
            "decode it with univert.data.decode.decode_rgb"
        )
    return np.ascontiguousarray(preprocessing(image).transpose(2, 0, 1))


def prepared_batches(
    preprocessing: Preprocessing, catalogue: Images, batch_size: int = 64, *, positions: Sequence[int] | None = None
) -> Iterator[UInt8[np.ndarray, "B 3 S S"]]:
    """Batches of all of a catalogue's images, or of those at some positions, prepared ahead in threads.

    Raises:
        BadInputError: an image cannot be read; the message names it.
    """
    from univert.data.loading import ImageLoader  # loads PyTorch

    loader = ImageLoader(catalogue, preprocessing)
    for batch in loader.batches(range(len(catalogue)) if positions is None else positions, batch_size):
        yield np.ascontiguousarray(batch.numpy())


def check_pixels(batch: np.ndarray, image_size_px: int) -> UInt8[np.ndarray, "B 3 S S"]:
    """A batch of prepared images as it is; raises BadInputError for another shape or kind of numbers."""
    wanted = (3, image_size_px, image_size_px)
    if batch.ndim != 4 or batch.shape[1:] != wanted or batch.dtype != np.uint8:
        sizes = ", ".join(map(str, wanted))
        raise BadInputError(f"batch must be uint8 of shape (B, {sizes}), got {batch.dtype} of {batch.shape}")
    return batch


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
    return OnnxEngine(path, threads=threads)


def _read_about(session: Any, path: Path) -> dict[str, str]:
    """What an exported file says about itself, by name without the prefix."""
    metadata = session.get_modelmeta().custom_metadata_map
    about = {
        key.removeprefix(METADATA_PREFIX): value for key, value in metadata.items() if key.startswith(METADATA_PREFIX)
    }
    if about.get("format") != FORMAT:
        raise BadInputError(
            f"{path}: not an ONNX model that this version of Univert exported; make it again with: "
            f"univert export {path.parent}"
        )
    return about
