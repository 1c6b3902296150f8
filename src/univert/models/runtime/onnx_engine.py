"""The ONNX Runtime engine: an exported model, ready for queries, without PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from jaxtyping import Float, UInt8

from univert.core.errors import BadInputError
from univert.core.files import fingerprint
from univert.data.transforms import Preprocessing
from univert.models.runtime.engine import Engine
from univert.models.runtime.pixels import check_pixels

onnxruntime.disable_telemetry_events()  # it would keep a database and a device id in the user's cache

FORMAT: Final = "1"
INPUT, OUTPUT = "images", "vectors"
METADATA_PREFIX: Final = "univert."
"""Keys of what an exported file says about itself: format, kind, fingerprint, size, preprocessing."""

_SLICE_PX: Final = 8 * 128**2
"""Pixels that go through the network together. Measured on a CPU at 128 px: 8 images take 1.65 ms each, 64 take 2.2,
because the maps between the layers leave the caches, and one alone takes 1.9."""


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


def open_session(content: Path | bytes, threads: int) -> Any:
    """An inference session on the CPU that leaves cores to others while it waits.

    Raises:
        BadInputError: the file is missing or damaged.
    """
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
