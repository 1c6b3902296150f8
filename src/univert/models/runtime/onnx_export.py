"""From a model to an ONNX file that gives the same vectors: exported, checked, kept beside the model."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float, UInt8

from univert.core.errors import BadInputError, UnivertError
from univert.core.files import fingerprint, write_atomic
from univert.models.runtime.onnx_engine import FORMAT, INPUT, METADATA_PREFIX, OUTPUT, open_session, read_about

if TYPE_CHECKING:
    from univert.models.embedder import Embedder

ONNX_FILE, INT8_FILE = "model.onnx", "model-int8.onnx"
MAX_DIFFERENCE: Final = 1e-4
"""How far a coordinate of an exported model's unit vector may be from PyTorch's."""

_CHECK_IMAGES: Final = 16
_CHECK_BATCHES: Final = (1, 2, 7)
_MAX_BYTES: Final = 2_000_000_000
_OPSET: Final = 20


class ExportError(UnivertError, RuntimeError):
    """A model that ONNX cannot express, or not exactly. It can be served with PyTorch."""


def ensure_onnx(model_path: str | Path, *, cache: Path | None = None) -> Path:
    """The ONNX file of a saved model: the one that is there if it belongs to the model, else a new one.

    It is kept beside the model as `model.onnx`, or in a cache folder where the model's own is read only. Processes
    that ask at the same time wait for the first one's export.

    Args:
        model_path: a model folder, or `OWNER/NAME` on the Hugging Face hub.
        cache: the cache folder; None for the user's.

    Returns:
        the file.

    Raises:
        BadInputError: no such model.
        ExportError: the model cannot be exported, or the file's vectors differ from PyTorch's by more than 1e-4.
    """
    source = source_key(model_path)
    if source is None:  # a model on the hub, or none: loading it says which
        model = _load(model_path)
        key = model.fingerprint
    elif (found := find_onnx(model_path, source, ONNX_FILE, cache)) is not None:
        return found
    else:
        model, key = None, source
    folder = export_folder(model_path, key, cache)
    with _one_at_a_time(folder, key, cache):
        if source is not None and (found := find_onnx(model_path, source, ONNX_FILE, cache)) is not None:
            return found  # another process was faster: this one need not even load the model
        model = model or _load(model_path)
        path = folder / ONNX_FILE
        if belongs(path, source=source, model_fingerprint=model.fingerprint):
            return path
        return export_onnx(model, folder, source=source)


def export_onnx(
    model: Embedder, folder: Path, *, images: UInt8[np.ndarray, "B 3 S S"] | None = None, source: str | None = None
) -> Path:
    """Export everything after preprocessing, up to the unit vector, with a batch of any size; check it; write it.

    Args:
        model: the model.
        folder: where the file goes; it appears whole or not at all.
        images: prepared images for the check beside random ones; None takes some of the bundled sample's.
        source: `source_key` of the model's folder, so that the file is recognised without loading the model.

    Returns:
        the file.

    Raises:
        ExportError: ONNX cannot express the model, or the vectors differ by more than 1e-4. No file is written.
    """
    content = with_about(_to_onnx(model), about_model(model, "onnx", source))
    difference = largest_difference(model, content, check_images(model, images))
    if not difference <= MAX_DIFFERENCE:  # true for NaN, too
        raise ExportError(
            f"the exported model's vectors differ from PyTorch's by {difference:.2g}, more than {MAX_DIFFERENCE:g}; "
            "serve this model with the engine torch"
        )
    write_atomic(folder / ONNX_FILE, content)
    return folder / ONNX_FILE


def find_int8(model_path: str | Path, *, cache: Path | None = None) -> Path:
    """The quantised file that `univert export --int8` made of a saved model.

    Raises:
        BadInputError: there is none that belongs to the model.
    """
    source = source_key(model_path)
    found = None if source is None else find_onnx(model_path, source, INT8_FILE, cache)
    if found is None:
        raise BadInputError(
            f"{model_path}: no quantised model; make one and see what it costs with: "
            f"univert export {model_path} --int8 CATALOGUE"
        )
    return found


def find_onnx(model_path: str | Path, source: str, name: str, cache: Path | None) -> Path | None:
    """The file of that name that belongs to a model, beside it or in the cache; None if there is none."""
    for folder in (Path(model_path), _cache(cache) / source):
        if belongs(folder / name, source=source):
            return folder / name
    return None


def belongs(path: Path, *, source: str | None, model_fingerprint: str | None = None) -> bool:
    """Whether there is a usable exported file at `path` and it is of this model."""
    if not path.is_file():
        return False
    try:
        about = read_about(open_session(path, 1), path)
    except BadInputError:
        return False
    by_source = source is not None and about.get("source") == source
    return by_source or (model_fingerprint is not None and about.get("fingerprint") == model_fingerprint)


def source_key(model_path: str | Path) -> str | None:
    """What tells a saved model from any other without reading its weights; None for a model on the hub."""
    path = Path(model_path) / "config.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return fingerprint(stored["config"], stored["weights_fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # loading the model says what is wrong


def export_folder(model_path: str | Path, key: str, cache: Path | None) -> Path:
    """Where a model's exported files go: beside it, or in the cache where that cannot be written."""
    folder = Path(model_path)
    if folder.is_dir() and os.access(folder, os.W_OK):
        return folder
    return _cache(cache) / (source_key(model_path) or key)


def about_model(model: Embedder, kind: str, source: str | None) -> dict[str, str]:
    """What an exported file says about itself."""
    return {
        "format": FORMAT,
        "kind": kind,
        "fingerprint": model.fingerprint,
        "source": source or "",
        "size": str(model.size),
        "preprocessing": json.dumps(dataclasses.asdict(model.preprocessing), sort_keys=True),
    }


def with_about(proto: Any, about: dict[str, str]) -> bytes:
    """A model with what it says about itself, as the bytes of a file.

    Raises:
        ExportError: it is larger than one file can be.
    """
    del proto.metadata_props[:]
    for name, value in about.items():
        proto.metadata_props.add(key=METADATA_PREFIX + name, value=value)
    if proto.ByteSize() > _MAX_BYTES:
        raise ExportError("the model is larger than 2 GB, the limit of ONNX; serve it with the engine torch")
    content: bytes = proto.SerializeToString()
    return content


def check_images(model: Embedder, images: UInt8[np.ndarray, "B 3 S S"] | None = None) -> UInt8[np.ndarray, "B 3 S S"]:
    """Random and real images, prepared, on which an exported model must agree with PyTorch."""
    side = model.preprocessing.image_size_px
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (_CHECK_IMAGES, 3, side, side), dtype=np.uint8)
    plain = np.zeros((2, 3, side, side), np.uint8)
    plain[1] = 255
    real = sample_images(model, _CHECK_IMAGES) if images is None else images
    return np.concatenate([noise, plain, real])


def sample_images(model: Embedder, count: int) -> UInt8[np.ndarray, "B 3 S S"]:
    """The first images of the bundled sample, prepared for a model."""
    from univert.data.decode import decode_rgb
    from univert.data.sample import sample_rows
    from univert.models.runtime.engine import prepare_image

    preprocessing = model.preprocessing
    contents = [row.image or b"" for row in itertools.islice(sample_rows(), count)]
    background = preprocessing.background_rgb
    return np.stack(
        [prepare_image(preprocessing, decode_rgb(content, background_rgb=background)) for content in contents]
    )


def largest_difference(model: Embedder, content: bytes, images: UInt8[np.ndarray, "B 3 S S"]) -> float:
    """The largest difference of a coordinate between an exported model and PyTorch, in batches of several sizes."""
    session = open_session(content, 1)
    expected = torch_vectors(model, images)
    largest = 0.0
    for batch in (*_CHECK_BATCHES, len(images)):
        parts = [
            session.run([OUTPUT], {INPUT: images[start : start + batch]})[0] for start in range(0, len(images), batch)
        ]
        difference = float(np.abs(np.concatenate(parts) - expected).max())
        largest = max(largest, difference) if difference == difference else float("nan")
    return largest


def torch_vectors(model: Embedder, images: UInt8[np.ndarray, "B 3 S S"]) -> Float[np.ndarray, "B D"]:
    """PyTorch's unit vectors of prepared images."""
    from univert.models.runtime.torch_engine import TorchEngine

    return TorchEngine(model).run(images)


def _load(model_path: str | Path) -> Embedder:
    from univert.models.embedder import Embedder

    return Embedder.from_pretrained(model_path)


def _to_onnx(model: Embedder) -> Any:
    import torch

    side = model.preprocessing.image_size_px
    example = torch.zeros((2, 3, side, side), dtype=torch.uint8, device=model.device)
    training = model.training
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter, about itself
            program = torch.onnx.export(
                model.eval(),
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=_OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            )
        assert program is not None
        return program.model_proto
    except Exception as error:
        # The exporter's errors are as many as the operators it does not know.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(f"the model cannot be exported to ONNX ({reason}); serve it with the engine torch") from error
    finally:
        model.train(training)


def _cache(cache: Path | None) -> Path:
    if cache is not None:
        return cache
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "univert" / "onnx"


@contextlib.contextmanager
def _one_at_a_time(folder: Path, key: str, cache: Path | None) -> Iterator[None]:
    """Make the folder, and let one process at a time work on a model; without a lock where none can be kept."""
    locks = _cache(cache)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(
            f"{folder} cannot be made ({error.strerror}); name a cache folder that can be written"
        ) from None
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            locks.mkdir(parents=True, exist_ok=True)
            fcntl.flock(held.enter_context((locks / f"{key}.lock").open("w")), fcntl.LOCK_EX)
        yield


if __name__ == "__main__":  # see `univert.models.runtime.engine.export_ahead`
    with contextlib.suppress(UnivertError):
        ensure_onnx(sys.argv[1], cache=Path(sys.argv[2]) if len(sys.argv) > 2 else None)
