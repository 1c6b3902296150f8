"""A detector without training: it finds what is dark in each quarter of a photo whose middle is bright."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from univert.core.config import to_plain
from univert.core.files import fingerprint
from univert.detection.config import DetectorConfig
from univert.detection.engine import BOXES, FORMAT, INPUT, SCORES
from univert.models.runtime.engine import METADATA_PREFIX

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
    node, values = helper.make_node, helper.make_tensor_value_info
    sureness = np.zeros((1, 4, len(verticals)), np.float32)
    for quarter in range(4):
        sureness[0, quarter, quarter % len(verticals)] = 0.9 - quarter / 10
    constants = {
        "scale": np.float32(-1 / 255),
        "paper": np.float32(0.95),
        "channels": np.array([1]),
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
        node("ReduceMean", ["minus_light", "channels"], ["minus_grey"], keepdims=1),
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
    graph = helper.make_graph(
        nodes,
        "small detector",
        [values(INPUT, TensorProto.UINT8, ("B", 3, SIDE, SIDE))],
        [values(BOXES, TensorProto.FLOAT, ("B", 4, 4)), values(SCORES, TensorProto.FLOAT, ("B", 4, len(verticals)))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    config = to_plain(DetectorConfig(verticals=verticals, image_size_px=SIDE))
    about = {
        "format": FORMAT,
        "kind": "onnx-detector",
        "fingerprint": fingerprint(config, "no weights"),
        "config": json.dumps(config),
    }
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {METADATA_PREFIX + name: value for name, value in about.items()})
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"config": config, "weights_fingerprint": "no weights"}))
    onnx.save(model, folder / "model.onnx")
    return folder
