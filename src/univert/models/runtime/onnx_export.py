"""From a saved model to an ONNX file beside it that gives the same vectors: exported, checked, written."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import UInt8

from univert.core.errors import BadInputError, UnivertError
from univert.core.files import write_atomic
from univert.models.runtime.engine import (
    FORMAT,
    INPUT,
    METADATA_PREFIX,
    ONNX_FILE,
    OUTPUT,
    OnnxEngine,
    open_session,
    prepare_image,
)

if TYPE_CHECKING:
    from univert.models.embedder import Embedder

MAX_DIFFERENCE: Final = 1e-4
"""How far a coordinate of an exported model's unit vector may be from PyTorch's."""

_CHECK_IMAGES: Final = 16
_CHECK_BATCHES: Final = (1, 2, 7)
_MAX_BYTES: Final = 2_000_000_000
_OPSET: Final = 20


class ExportError(UnivertError, RuntimeError):
    """A model that ONNX cannot express, or not exactly. It can be served with PyTorch."""


def export_onnx(model_folder: str | Path) -> Path:
    """Export a saved model: everything after preprocessing, up to the unit vector, with a batch of any size.

    A file that is there and belongs to the model is kept. Before a new one is written it is checked against PyTorch.

    Args:
        model_folder: where the model is; `model.onnx` goes there too, and appears whole or not at all.

    Returns:
        the file.

    Raises:
        BadInputError: no such model.
        ExportError: ONNX cannot express the model, or a coordinate differs by more than 1e-4. No file is written.
    """
    from univert.models.embedder import Embedder

    path = Path(model_folder) / ONNX_FILE
    if _is_there(path):
        return path
    if not path.parent.is_dir():
        raise BadInputError(f"{model_folder}: no such model folder")
    model = Embedder.from_pretrained(model_folder)
    content = with_metadata(to_onnx(model, model.preprocessing.image_size_px, [OUTPUT]), _about(model))
    difference = largest_difference(model, content)
    if not difference <= MAX_DIFFERENCE:  # true for NaN, too
        raise ExportError(
            f"the exported model's vectors differ from PyTorch's by {difference:.2g}, more than {MAX_DIFFERENCE:g}; "
            "serve this model with the engine torch"
        )
    write_atomic(path, content)
    return path


def export_published(model_folder: str | Path, export: Callable[[str | Path], Path] = export_onnx) -> str | None:
    """Make the ONNX file of a model that has just been published, where the extra `serve` is installed.

    Returns:
        a line that says why ONNX cannot express the model, so that it is served with PyTorch; None if all is well.
    """
    if not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript")):
        return None
    try:
        export(model_folder)
    except ExportError as error:
        return f"{model_folder}: {error}"
    return None


def with_metadata(proto: Any, about: dict[str, str]) -> bytes:
    """An ONNX graph with what it says about itself, as the bytes of a file; raises ExportError above 2 GB."""
    del proto.metadata_props[:]
    for name, value in about.items():
        proto.metadata_props.add(key=METADATA_PREFIX + name, value=value)
    if proto.ByteSize() > _MAX_BYTES:
        raise ExportError("the model is larger than 2 GB, the limit of ONNX; serve it with the engine torch")
    content: bytes = proto.SerializeToString()
    return content


def largest_difference(model: Embedder, content: bytes) -> float:
    """How far a coordinate of an exported file's vectors is from PyTorch's, in batches of several sizes."""
    from univert.models.runtime.torch_engine import TorchEngine

    images = _check_images(model)
    session = open_session(content, 1)
    expected = TorchEngine(model).run(images)
    largest = 0.0
    for batch in (*_CHECK_BATCHES, len(images)):
        parts = [
            session.run([OUTPUT], {INPUT: images[start : start + batch]})[0] for start in range(0, len(images), batch)
        ]
        difference = float(np.abs(np.concatenate(parts) - expected).max())
        largest = max(largest, difference) if difference == difference else float("nan")
    return largest


def _is_there(path: Path) -> bool:
    try:
        OnnxEngine(path)
    except BadInputError:
        return False
    return True


def _about(model: Embedder) -> dict[str, str]:
    return {
        "format": FORMAT,
        "kind": "onnx",
        "fingerprint": model.fingerprint,
        "size": str(model.size),
        "preprocessing": json.dumps(dataclasses.asdict(model.preprocessing), sort_keys=True),
    }


def _check_images(model: Embedder) -> UInt8[np.ndarray, "B 3 S S"]:
    """Random images, blank ones and the first of the bundled product pictures, prepared."""
    from univert.data.decode import decode_rgb
    from univert.data.sample import sample_rows

    preprocessing = model.preprocessing
    side = preprocessing.image_size_px
    noise = np.random.default_rng(0).integers(0, 256, (_CHECK_IMAGES, 3, side, side), dtype=np.uint8)
    plain = np.zeros((2, 3, side, side), np.uint8)
    plain[1] = 255
    real = [
        prepare_image(preprocessing, decode_rgb(row.image or b"", background_rgb=preprocessing.background_rgb))
        for row in itertools.islice(sample_rows(), _CHECK_IMAGES)
    ]
    return np.concatenate([noise, plain, np.stack(real)])


def to_onnx(model: Any, side: int, outputs: list[str]) -> Any:
    """The ONNX graph of a module that takes prepared images of `side` px, a batch of any size; raises ExportError."""
    import torch

    example = torch.zeros((2, 3, side, side), dtype=torch.uint8, device=model.device)
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # the same to the model; the exporter takes a third of its time to undo it
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter, about itself
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=_OPSET,
                input_names=[INPUT],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            )
        assert program is not None
        return program.model_proto
    except Exception as error:
        # The exporter's errors are as many as the operators it does not know.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ExportError(f"the model cannot be exported to ONNX ({reason}); serve it with the engine torch") from error
