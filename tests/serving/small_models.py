"""Models without training: a detector finds what is dark in each quarter of a photo whose middle is bright."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from univert.core.config import to_plain
from univert.core.files import fingerprint
from univert.data.transforms import Preprocessing
from univert.detection.config import DetectorConfig
from univert.detection.engine import BOXES, FORMAT, INPUT, SCORES
from univert.models.runtime import engine
from univert.models.runtime.engine import METADATA_PREFIX, OUTPUT

SIDE, CELLS = 64, 16
QUARTERS = [(x, y, x + 0.3, y + 0.4) for y in (0.05, 0.55) for x in (0.075, 0.575)]
"""Where it says that the items are, as shares of the photo's sides."""


def evidence() -> np.ndarray:
    """What the darkness of each cell says of each quarter, flat (cells, quarters)."""
    weights = np.zeros((4, CELLS, CELLS), np.float32)
    half, middle = CELLS // 2, slice(CELLS // 2 - 1, CELLS // 2 + 1)
    for quarter in range(4):
        y, x = divmod(quarter, 2)
        weights[quarter, y * half : (y + 1) * half, x * half : (x + 1) * half] = 1 / half**2
    weights[:, middle, middle] = -1
    return weights.reshape(4, -1).T


def save_small_detector(folder: Path, verticals: tuple[str, ...] = ("bags", "lamps", "shoes")) -> Path:
    """Write it, as `univert detect train` would; what it finds is of the first, second, third, first vertical."""
    node = helper.make_node
    sureness = np.zeros((1, 4, len(verticals)), np.float32)
    for quarter in range(4):
        sureness[0, quarter, quarter % len(verticals)] = 0.9 - quarter / 10
    constants = {
        "scale": np.float32(-1 / 255),
        "paper": np.float32(0.95),
        "evidence": evidence(),
        "enough": np.float32(0.05),
        "shape": np.array([-1, 4, 1]),
        "sureness": sureness,
        "nothing": np.float32(0),
        "quarters": np.array([QUARTERS], np.float32) * SIDE,
    }
    nodes = [
        node("Cast", [INPUT], ["pixels"], to=TensorProto.FLOAT),
        node("Mul", ["pixels", "scale"], ["minus_light"]),
        node("ReduceMean", ["minus_light"], ["minus_grey"], axes=[1], keepdims=1),
        node("Add", ["minus_grey", "paper"], ["darker"]),
        node("Relu", ["darker"], ["darkness"]),
        node("AveragePool", ["darkness"], ["cells"], kernel_shape=[SIDE // CELLS] * 2, strides=[SIDE // CELLS] * 2),
        node("Flatten", ["cells"], ["flat"]),
        node("MatMul", ["flat", "evidence"], ["said"]),
        node("Greater", ["said", "enough"], ["is_there"]),
        node("Cast", ["is_there"], ["there"], to=TensorProto.FLOAT),
        node("Reshape", ["there", "shape"], ["found"]),
        node("Mul", ["found", "sureness"], [SCORES]),
        node("Mul", ["found", "nothing"], ["no_move"]),
        node("Add", ["no_move", "quarters"], [BOXES]),
    ]
    config = to_plain(DetectorConfig(verticals=verticals, image_size_px=SIDE))
    outputs = {BOXES: ("B", 4, 4), SCORES: ("B", 4, len(verticals))}
    about = {"format": FORMAT, "kind": "onnx-detector", "config": json.dumps(config)}
    return write_model(folder, nodes, constants, outputs, config, about)


def save_small_embedder(folder: Path) -> Path:
    """Write it, as `univert train` would; a picture's vector is how the colours of its cells differ from their mean."""
    node, flat = helper.make_node, 3 * 8 * 8
    constants = {"scale": np.float32(1 / 255), "blank": np.full(flat, 1e-3, np.float32)}
    nodes = [
        node("Cast", [INPUT], ["pixels"], to=TensorProto.FLOAT),
        node("Mul", ["pixels", "scale"], ["light"]),
        node("AveragePool", ["light"], ["cells"], kernel_shape=[SIDE // 8] * 2, strides=[SIDE // 8] * 2),
        node("Flatten", ["cells"], ["flat"]),
        node("ReduceMean", ["flat"], ["mean"], axes=[1], keepdims=1),
        node("Sub", ["flat", "mean"], ["differences"]),
        node("Add", ["differences", "blank"], ["never_nothing"]),
        node("LpNormalization", ["never_nothing"], [OUTPUT], axis=1, p=2),
    ]
    preprocessing = json.dumps(asdict(Preprocessing(image_size_px=SIDE)))
    about = {"format": engine.FORMAT, "kind": "onnx", "size": str(flat), "preprocessing": preprocessing}
    return write_model(folder, nodes, constants, {OUTPUT: ("B", flat)}, {}, about)


def write_model(
    folder: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, Any],
    outputs: dict[str, tuple[Any, ...]],
    config: dict[str, Any],
    about: dict[str, str],
) -> Path:
    values = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "small model",
        [values(INPUT, TensorProto.UINT8, ("B", 3, SIDE, SIDE))],
        [values(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    about = {**about, "fingerprint": fingerprint(config, "no weights")}
    helper.set_model_props(model, {METADATA_PREFIX + name: value for name, value in about.items()})
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"config": config, "weights_fingerprint": "no weights"}))
    onnx.save(model, folder / "model.onnx")
    return folder
