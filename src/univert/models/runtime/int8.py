"""A quantised model: 8-bit weights and activations, quicker where the processor has 8-bit dot products."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import UInt8

from univert.core.errors import BadInputError
from univert.core.files import write_atomic
from univert.models.runtime.engine import INPUT, INT8_FILE, OUTPUT, OnnxEngine, open_session
from univert.models.runtime.onnx_export import with_metadata

CALIBRATION_IMAGES: Final = 256
"""Images whose activations set the ranges; more change nothing that can be seen in Recall@1."""

_AT_ONCE: Final = 32
_LEAST_IMAGES: Final = 8
_FAITHFUL: Final = 0.5


def export_int8(exact_path: Path, images: UInt8[np.ndarray, "B 3 S S"]) -> Path:
    """Quantise an exported model statically: a scale for each output channel, ranges of activations from images.

    One scale for a whole weight tensor is the naive way, and ruins depthwise convolutions, whose channels differ by
    orders of magnitude: it took Recall@1 of an EfficientNet-Lite0 from 0.61 to 0.46, a scale a channel took nothing.

    Args:
        exact_path: the file that `univert.models.runtime.onnx_export.export_onnx` gave; the quantised one goes beside
            it, and appears whole or not at all.
        images: prepared images such as the model will see; `CALIBRATION_IMAGES` are enough.

    Returns:
        the file.

    Raises:
        BadInputError: too few images, or a model that does not survive: its vectors point elsewhere.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if len(images) < _LEAST_IMAGES:
        raise BadInputError(
            f"quantising needs at least {_LEAST_IMAGES} images for the ranges, got {len(images)}; "
            f"give some hundred that look like the queries"
        )
    exact = OnnxEngine(exact_path)
    with tempfile.TemporaryDirectory() as name, _quiet():
        ready, quantised = Path(name) / "ready.onnx", Path(name) / INT8_FILE
        quant_pre_process(exact_path, ready, skip_symbolic_shape=True)
        quantize_static(
            ready,
            quantised,
            _reader(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        content = with_metadata(onnx.load(quantised), {**exact.about, "kind": "onnx-int8"})
    some = images[:64]
    vectors = open_session(content, 1).run([OUTPUT], {INPUT: some})[0]
    cosine = float(np.einsum("bd,bd->b", vectors, exact.run(some)).mean())
    if not cosine >= _FAITHFUL:  # true for NaN, too
        raise BadInputError(
            f"the model does not survive 8 bits: its vectors have a cosine of {cosine:.2f} with the exact ones; "
            "serve it with the engine onnx"
        )
    path = exact_path.parent / INT8_FILE
    write_atomic(path, content)
    return path


def _reader(images: UInt8[np.ndarray, "B 3 S S"]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._parts = iter({INPUT: images[start : start + _AT_ONCE]} for start in range(0, len(images), _AT_ONCE))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._parts, None)

    return Reader()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser from giving advice on the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
