"""A quantised model: 8-bit weights and activations, twice as fast, and what that costs in retrieval."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Float, UInt8

from univert.core.errors import BadInputError
from univert.core.files import write_atomic
from univert.core.protocols import Images
from univert.core.terminal import progress_bar
from univert.models.runtime.engine import Engine
from univert.models.runtime.onnx_engine import INPUT, OnnxEngine
from univert.models.runtime.onnx_export import INT8_FILE, with_about
from univert.models.runtime.prepared import prepared_batches

if TYPE_CHECKING:
    from univert.metrics.compare import Difference

CALIBRATION_IMAGES: Final = 256
"""Images whose activations set the ranges; more change nothing that can be seen in Recall@1."""

_AT_ONCE: Final = 32
_LEAST_IMAGES: Final = 8
_FAITHFUL: Final = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8Cost:
    """What quantising a model costs: quantised queries against the index of the exact model.

    Attributes:
        cosine: mean cosine similarity between an image's quantised vector and its exact one.
        recall_at_1: of exact queries, of quantised queries, and their difference with its interval, in the gallery
            merged over all verticals.
        images: how many images were compared.
    """

    cosine: float
    recall_at_1: Difference
    images: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return dataclasses.asdict(self)


def export_int8(exact: Path, folder: Path, images: UInt8[np.ndarray, "B 3 S S"]) -> Path:
    """Quantise an exported model statically: a scale for each output channel, ranges of activations from images.

    One scale for a whole weight tensor is the naive way, and ruins depthwise convolutions, whose channels differ by
    orders of magnitude: it took Recall@1 of an EfficientNet-Lite0 from 0.61 to 0.46, a scale a channel took nothing.

    Args:
        exact: the file that `univert.models.runtime.onnx_export.ensure_onnx` gave.
        folder: where the quantised file goes; it appears whole or not at all.
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
    about = OnnxEngine(exact).about
    with tempfile.TemporaryDirectory() as name, _quiet():
        ready, quantised = Path(name) / "ready.onnx", Path(name) / INT8_FILE
        quant_pre_process(exact, ready, skip_symbolic_shape=True)
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
        content = with_about(onnx.load(quantised), {**about, "kind": "onnx-int8"})
        write_atomic(quantised, content)
        cosine = _cosine(OnnxEngine(quantised).run(images[:64]), OnnxEngine(exact).run(images[:64]))
        if not cosine >= _FAITHFUL:  # true for NaN, too
            raise BadInputError(
                f"the model does not survive 8 bits: its vectors have a cosine of {cosine:.2f} with the exact ones; "
                "serve it with the engine onnx"
            )
    write_atomic(folder / INT8_FILE, content)
    return folder / INT8_FILE


def measure_int8(exact: Engine, quantised: Engine, catalogue: Images, *, batch_size: int = 64) -> Int8Cost:
    """Recall@1 of quantised queries against exact ones, paired, each image searching all the others' exact vectors.

    Args:
        exact: the engine that made the index.
        quantised: the engine that is to answer queries.
        catalogue: labelled images that nothing was trained on, such as the test split.
        batch_size: images at a time.

    Raises:
        BadInputError: no product has two images.
    """
    from univert.metrics.compare import compare_pairs
    from univert.metrics.ranking import rank_queries

    firsts: list[np.ndarray] = []
    seconds: list[np.ndarray] = []
    with progress_bar("comparing int8 with exact", len(catalogue)) as advance:
        for pixels in prepared_batches(exact, catalogue, batch_size):
            firsts.append(exact.run(pixels))
            seconds.append(quantised.run(pixels))
            advance(len(pixels))
    if not firsts:
        raise BadInputError("nothing to measure on: the catalogue (or the selection of it) has no images")
    gallery, queries = np.concatenate(firsts), np.concatenate(seconds)
    products = list(catalogue.column("product"))
    outcomes = (
        rank_queries(gallery, products),
        rank_queries(queries, products, gallery_vectors=gallery, leave_one_out=True),
    )
    difference = compare_pairs({"merged": outcomes})["merged"]["recall_at_1"]
    return Int8Cost(cosine=_cosine(queries, gallery), recall_at_1=difference, images=len(queries))


def _cosine(first: Float[np.ndarray, "B D"], second: Float[np.ndarray, "B D"]) -> float:
    return float(np.einsum("bd,bd->b", first, second).mean())


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
