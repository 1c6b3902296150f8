"""What finds the items in photos: an exported detector of ours or another's with ONNX Runtime, or one in PyTorch.

With ONNX Runtime, PyTorch is not even imported.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from univert.core.config import from_plain
from univert.core.errors import BadInputError
from univert.data.decode import decode_rgb
from univert.data.transforms import Preprocessing
from univert.detection.boxes import choose, to_photo
from univert.detection.config import DetectorConfig
from univert.models.runtime.engine import (
    METADATA_PREFIX,
    ONNX_FILE,
    open_session,
    prepare_image,
    saved_fingerprint,
    share_of_cores,
)

if TYPE_CHECKING:
    from univert.detection.model import Answer, DetectorModel

FORMAT: Final = "1"
INPUT, BOXES, SCORES = "images", "boxes", "scores"
OutputForm = Literal["boxes-scores-labels", "rows"]
"""What another's ONNX detector gives of one photo, boxes as x0, y0, x1, y1 in pixels of its input.

`boxes-scores-labels`: three outputs, (N, 4), (N,), (N,). `rows`: one, (N, 6): box, score, label. Labels count from 0
in the order of the verticals. A first axis of one photo may stand before each.
"""
_AT_ONCE: Final = 4
"""Photos that go through the network together: more leave a processor's caches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundItem:
    """An item that a detector found.

    Attributes:
        box_xyxy_px: where (x0, y0, x1, y1), in pixels of the upright photo.
        vertical: what kind of thing.
        score: how sure the detector is, 0 to 1.
    """

    box_xyxy_px: tuple[float, float, float, float]
    vertical: str
    score: float


class Detector(ABC):
    """Finds the items in photos. May be called from any thread.

    Attributes:
        name: the kind of engine: `onnx`, `torch` or `onnx (foreign)`.
        verticals: what it can tell apart.
        fingerprint: of the model; None where it has none.
        least_score: what is less sure than this is not given, unless asked for.
        preprocessing: from an upright photo to the square that the network sees.
    """

    name: str
    verticals: tuple[str, ...]
    fingerprint: str | None
    least_score: float
    preprocessing: Preprocessing

    @abstractmethod
    def answers(self, batch: UInt8[np.ndarray, "B 3 S S"], least_score: float) -> list[Answer]:
        """What is found in prepared photos, in pixels of the square."""

    def detect(self, photos: Sequence[Image.Image], *, least_score: float | None = None) -> list[list[FoundItem]]:
        """The items in upright RGB photos, as `univert.data.decode.decode_rgb` gives them, the surest first."""
        least = self.least_score if least_score is None else least_score
        found: list[list[FoundItem]] = []
        for start in range(0, len(photos), _AT_ONCE):
            part = photos[start : start + _AT_ONCE]
            answers = self.answers(np.stack([prepare_image(self.preprocessing, photo) for photo in part]), least)
            found += [self._items(answer, photo.size) for answer, photo in zip(answers, part, strict=True)]
        return found

    def detect_files(self, paths: Sequence[Path | str], *, least_score: float | None = None) -> list[list[FoundItem]]:
        """The items in image files.

        Raises:
            ImageProblem: one is not a usable image.
            OSError: one cannot be read.
        """
        return [self.detect([decode_rgb(Path(path).read_bytes())], least_score=least_score)[0] for path in paths]

    def _items(self, answer: Answer, size: tuple[int, int]) -> list[FoundItem]:
        boxes, scores, labels = answer
        found = []
        for box, score, label in zip(to_photo(boxes, size, self.preprocessing).tolist(), scores, labels, strict=True):
            x0, y0, x1, y1 = box
            if x0 < x1 and y0 < y1 and 0 <= label < len(self.verticals):
                found.append(
                    FoundItem(box_xyxy_px=(x0, y0, x1, y1), vertical=self.verticals[label], score=float(score))
                )
        return found


class OnnxDetector(Detector):
    """A detector that `univert.detection.onnx_export` exported.

    Args:
        path: the file, beside the `config.json` of its model.
        threads: threads that one photo is computed with.

    Raises:
        BadInputError: the file is missing, damaged, not one of Univert's, or of another model than the one beside it.
    """

    name = "onnx"

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self._session = open_session(path, threads)
        about = self._session.get_modelmeta().custom_metadata_map
        if about.get(METADATA_PREFIX + "kind") != "onnx-detector" or about[METADATA_PREFIX + "format"] != FORMAT:
            raise BadInputError(f"{path}: not a detector that this version of Univert exported")
        config = from_plain(DetectorConfig, json.loads(about[METADATA_PREFIX + "config"]), where=str(path))
        self.fingerprint = about[METADATA_PREFIX + "fingerprint"]
        if self.fingerprint != saved_fingerprint(path.parent):
            raise BadInputError(f"{path} is of another model than the one beside it; train it again")
        self._config, self.verticals, self.least_score = config, config.verticals, config.least_score
        self.preprocessing = config.preprocessing()

    def answers(self, batch: UInt8[np.ndarray, "B 3 S S"], least_score: float) -> list[Answer]:
        """See `Detector.answers`."""
        config = self._config
        boxes, scores = self._session.run([BOXES, SCORES], {INPUT: batch})
        return [
            choose(*one, least_score=least_score, max_overlap=config.max_overlap, max_items=config.max_items)
            for one in zip(boxes, scores, strict=True)
        ]


class ForeignOnnxDetector(Detector):
    """Another's ONNX detector whose output has a stated form.

    Its one input is a photo: RGB (1, 3, H, W), uint8, or floats from 0 to 1; where H and W are free, 640.

    Args:
        path: the file.
        verticals: the names of its labels.
        form: of its output.
        threads: threads that one photo is computed with.

    Raises:
        BadInputError: the file is no such detector.
    """

    name = "onnx (foreign)"
    fingerprint = None
    least_score = 0.5

    def __init__(self, path: Path, verticals: Sequence[str], form: OutputForm, *, threads: int = 1) -> None:
        if form not in get_args(OutputForm):
            raise BadInputError(f"format must be one of {', '.join(get_args(OutputForm))}, got {form!r}")
        if not verticals:
            raise BadInputError(f"{path}: name its verticals, in the order of its labels")
        self._path, self._form, self.verticals = path, form, tuple(verticals)
        self._session = open_session(path, threads)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        wanted = 3 if form == "boxes-scores-labels" else 1
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or len(outputs) < wanted:
            raise BadInputError(
                f"{path}: a detector of the format {form} has one input (1, 3, H, W) and {wanted} outputs; this one "
                f"has {len(inputs)} and {len(outputs)}"
            )
        self._input = inputs[0]
        height, width = (side if isinstance(side, int) else 640 for side in self._input.shape[2:])
        if height != width:
            raise BadInputError(f"{path}: its input is {width} x {height} px; export it for a square")
        self.preprocessing = Preprocessing(image_size_px=width, fit="stretch")

    def answers(self, batch: UInt8[np.ndarray, "B 3 S S"], least_score: float) -> list[Answer]:
        """See `Detector.answers`."""
        return [self._answer(photo[None], least_score) for photo in batch]

    def _answer(self, photo: np.ndarray, least_score: float) -> Answer:
        pixels = photo if "uint8" in self._input.type else (photo / 255).astype(np.float32)
        outputs = [np.asarray(one) for one in self._session.run(None, {self._input.name: pixels})]
        if self._form == "rows":
            rows = outputs[0].reshape(-1, outputs[0].shape[-1])
            outputs = [rows[:, :4], rows[:, 4], rows[:, 5]] if rows.shape[1] == 6 else []
        sizes = [one.size for one in outputs[:3]]
        if len(sizes) < 3 or sizes != [4 * sizes[2], sizes[2], sizes[2]]:
            raise BadInputError(f"{self._path}: its output does not have the format {self._form}; see docs/detect.md")
        boxes, scores, labels = outputs[0].reshape(-1, 4), outputs[1].ravel(), outputs[2].ravel()
        kept = np.flatnonzero((scores > least_score) & np.isfinite(boxes).all(1))
        kept = kept[np.argsort(-scores[kept], kind="stable")]
        return boxes[kept].astype(np.float32), scores[kept].astype(np.float32), labels[kept].astype(np.int64)


class TorchDetector(Detector):
    """A detector in PyTorch, on whatever device it is."""

    name = "torch"

    def __init__(self, model: DetectorModel) -> None:
        self._model: Any = model.eval()
        self.verticals, self.least_score = model.config.verticals, model.config.least_score
        self.fingerprint, self.preprocessing = model.fingerprint, model.preprocessing

    def answers(self, batch: UInt8[np.ndarray, "B 3 S S"], least_score: float) -> list[Answer]:
        """See `Detector.answers`."""
        from univert.detection.model import as_batch

        found: list[Answer] = self._model.answers(as_batch(batch, self._model.device), least_score)
        return found


def load_detector(
    path: Path | str,
    *,
    form: OutputForm | None = None,
    verticals: Sequence[str] = (),
    threads: int | None = None,
    device: str = "cpu",
) -> Detector:
    """Make a detector ready: a model folder of ours, or another's ONNX file.

    Args:
        path: the folder or file.
        form: of the output of another's ONNX file.
        verticals: of another's ONNX file, in the order of its labels.
        threads: threads that one photo is computed with; None takes all cores.
        device: other than `cpu`, the folder's model runs with PyTorch.

    Raises:
        BadInputError: there is no detector, or it is not as stated.

    Example:
        >>> detector = load_detector("runs/detector")  # doctest: +SKIP
        >>> detector.detect_files(["room.jpg"])  # doctest: +SKIP
    """
    path, threads = Path(path), share_of_cores(1) if threads is None else threads
    if path.suffix == ".onnx" and path.is_file():
        if form is None:
            raise BadInputError(f"{path}: state the format of its output, one of {', '.join(get_args(OutputForm))}")
        return ForeignOnnxDetector(path, verticals, form, threads=threads)
    if form is not None or verticals:
        raise BadInputError(f"{path}: format and verticals belong to an ONNX file; a model folder has its own")
    if device == "cpu" and (path / ONNX_FILE).is_file():
        return OnnxDetector(path / ONNX_FILE, threads=threads)
    from univert.core.tensors import choose_device
    from univert.detection.model import load_detector_model

    return TorchDetector(load_detector_model(path).to(choose_device(device)))
