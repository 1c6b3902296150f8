"""From a saved SSD to an ONNX file beside it that finds the same items: exported, checked, written."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Final

import numpy as np
import torch

from univert.core.config import to_plain
from univert.core.files import write_atomic
from univert.detection.engine import BOXES, FORMAT, INPUT, SCORES
from univert.detection.model import as_batch, load_detector_model
from univert.detection.ssd import SsdDetector
from univert.models.runtime.engine import ONNX_FILE, open_session
from univert.models.runtime.onnx_export import ExportError, to_onnx, with_metadata

MAX_SCORE_DIFFERENCE: Final = 1e-4
MAX_BOX_DIFFERENCE_PX: Final = 0.05


def export_detector(folder: Path | str) -> Path | None:
    """Export a saved SSD: prepared photos in; boxes and scores out, before non-maximum suppression.

    Args:
        folder: where the model is; `model.onnx` goes there too, whole or not at all.

    Returns:
        the file; None where the extra `serve` is not installed, or the network is one of torchvision's, which run with
        PyTorch.

    Raises:
        BadInputError: no such model.
        ExportError: ONNX cannot express the model, or not exactly. No file is written.
    """
    model = load_detector_model(folder)
    if not isinstance(model, SsdDetector):
        return None
    if not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript")):
        return None
    about = {
        "format": FORMAT,
        "kind": "onnx-detector",
        "fingerprint": model.fingerprint,
        "config": json.dumps(to_plain(model.config), sort_keys=True),
    }
    side = model.config.image_size_px
    content = with_metadata(to_onnx(model, side, [BOXES, SCORES]), about)
    images = np.random.default_rng(0).integers(0, 256, (3, 3, side, side), dtype=np.uint8)
    images[0] = 255
    with torch.inference_mode():
        wanted = [one.numpy() for one in model(as_batch(images, model.device))]
    found = open_session(content, 1).run([BOXES, SCORES], {INPUT: images})
    apart = [float(np.abs(one - other).max()) for one, other in zip(found, wanted, strict=True)]
    if not (apart[0] <= MAX_BOX_DIFFERENCE_PX and apart[1] <= MAX_SCORE_DIFFERENCE):  # true for NaN, too
        raise ExportError(
            f"the exported detector differs from PyTorch's by {apart[0]:.2g} px and {apart[1]:.2g} of a score; "
            "it runs with PyTorch"
        )
    path = Path(folder) / ONNX_FILE
    write_atomic(path, content)
    return path
