"""What finds the items in photos: an exported detector of ours or another's with ONNX Runtime, or one in PyTorch.

With ONNX Runtime, PyTorch is not even imported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from annotated_types import MinLen
from jaxtyping import UInt8
from PIL import Image

from univert.core.config import from_plain, to_plain
from univert.core.errors import BadInputError
from univert.core.files import fingerprint
from univert.data.decode import decode_rgb
from univert.detection.boxes import Answer, in_photo, one_label
from univert.detection.config import DetectorConfig
from univert.models.runtime.engine import (
    METADATA_PREFIX,
    ONNX_FILE,
    open_session,
    prepare_image,
    saved_fingerprint,
    share_of_cores,
)

FORMAT: Final = "1"
KIND: Final = "onnx-detector"
INPUT, BOXES, SCORES = "images", "boxes", "scores"
OutputForm = Literal["boxes-scores-labels", "rows"]
"""What another's ONNX detector gives of one photo, boxes as x0, y0, x1, y1 in pixels of its input.

`boxes-scores-labels`: three outputs, (N, 4), (N,), (N,). `rows`: one, (N, 6): box, score, label. Labels count from 0
in the order of the verticals. A first axis of one photo may stand before each.
"""
_PIXELS: Final = ("tensor(uint8)", "tensor(float)")
Answers = Callable[[UInt8[np.ndarray, "B 3 S S"]], list[Answer]]
_AT_ONCE: Final = 4
"""Photos that go through the network together: more leave a processor's caches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundItem:
    """An item that a detector found.

    Attributes:
        box_xyxy_px: where (x0, y0, x1, y1), in pixels of the upright photo.
        vertical: what kind of thing, most likely.
        score: how sure the detector is that there is an item, 0 to 1.
        vertical_score: how sure it is of an item of this vertical, at most `score`.
    """

    box_xyxy_px: tuple[float, float, float, float]
    vertical: str
    score: float
    vertical_score: float


class Detector:
    """Finds the items in photos; see `load_detector`. May be called from any thread.

    Args:
        name: the kind of engine: `onnx`, `torch` or `onnx (foreign)`.
        config: of the model.
        fingerprint: of the model.
        answers: from prepared photos (B, 3, S, S) to what is found, in pixels of the square.

    Attributes:
        verticals: what it can tell apart.
        least_score: what is less sure than this is not given, unless asked for.
        preprocessing: from an upright photo to the square that the network sees.
    """

    def __init__(self, name: str, config: DetectorConfig, fingerprint: str, answers: Answers) -> None:
        self.name, self.fingerprint, self.answers = name, fingerprint, answers
        self.verticals, self.least_score = config.verticals, config.least_score
        self.preprocessing = config.preprocessing()

    def detect(self, photos: Sequence[Image.Image], *, least_score: float | None = None) -> list[list[FoundItem]]:
        """The items in upright RGB photos, as `univert.data.decode.decode_rgb` gives them, the surest first.

        An item has one box, of the vertical that is surest.
        """
        least = self.least_score if least_score is None else least_score
        found: list[list[FoundItem]] = []
        for start in range(0, len(photos), _AT_ONCE):
            part = photos[start : start + _AT_ONCE]
            answers = self.answers(np.stack([prepare_image(self.preprocessing, photo) for photo in part]))
            found += [self._items(answer, photo.size, least) for answer, photo in zip(answers, part, strict=True)]
        return found

    def detect_files(self, paths: Sequence[Path | str], *, least_score: float | None = None) -> list[list[FoundItem]]:
        """The items in image files.

        Raises:
            ImageProblem: one is not a usable image.
            OSError: one cannot be read.
        """
        return [self.detect([decode_rgb(Path(path).read_bytes())], least_score=least_score)[0] for path in paths]

    def _items(self, answer: Answer, size: tuple[int, int], least_score: float) -> list[FoundItem]:
        boxes, scores = in_photo(answer, size, self.preprocessing, least_score)
        return [
            FoundItem(
                box_xyxy_px=(x0, y0, x1, y1),
                vertical=self.verticals[int(each.argmax())],
                score=float(each.sum()),
                vertical_score=float(each.max()),
            )
            for (x0, y0, x1, y1), each in zip(boxes.tolist(), scores, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class ForeignOutput:
    """What another's ONNX file gives, as the JSON file beside it says: `other.json` beside `other.onnx`.

    Attributes:
        format: the form of its output.
        verticals: the name of each label, in order.
    """

    format: OutputForm
    verticals: Annotated[tuple[str, ...], MinLen(1)]


def load_detector(path: Path | str, *, threads: int | None = None, device: str = "cpu") -> Detector:
    """Make a detector ready: a model folder of ours, or another's ONNX file.

    Args:
        path: the folder; or the file, beside which a JSON file says what it gives (`ForeignOutput`).
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
        return _foreign(path, threads)
    if not ((path / ONNX_FILE).is_file() or (path / "config.json").is_file()):
        raise BadInputError(f"{path}: no such detector; give the folder of one, or an ONNX file")
    if device == "cpu" and (path / ONNX_FILE).is_file():
        return _exported(path / ONNX_FILE, threads)
    return _in_pytorch(path, device)


def _exported(path: Path, threads: int) -> Detector:
    """A detector that `univert.detection.onnx_export` exported, beside the `config.json` of its model."""
    session = open_session(path, threads)
    about = session.get_modelmeta().custom_metadata_map
    if about.get(METADATA_PREFIX + "kind") != KIND or about[METADATA_PREFIX + "format"] != FORMAT:
        raise BadInputError(f"{path}: not a detector that this version of Univert exported")
    config = from_plain(DetectorConfig, json.loads(about[METADATA_PREFIX + "config"]), where=str(path))
    known_by = about[METADATA_PREFIX + "fingerprint"]
    if known_by != saved_fingerprint(path.parent):
        raise BadInputError(f"{path} is of another model than the one beside it; train it again")

    def answers(batch: np.ndarray) -> list[Answer]:
        return list(zip(*session.run([BOXES, SCORES], {INPUT: batch}), strict=True))

    return Detector("onnx", config, known_by, answers)


def _in_pytorch(folder: Path, device: str) -> Detector:
    import torch

    from univert.core.tensors import choose_device
    from univert.detection.model import load_detector_model

    model = load_detector_model(folder).to(choose_device(device))

    def answers(batch: np.ndarray) -> list[Answer]:
        return model.answers(torch.from_numpy(batch).to(model.device))

    return Detector("torch", model.config, model.fingerprint, answers)


def _foreign(path: Path, threads: int) -> Detector:
    """Another's ONNX detector; its one input is a photo: RGB (1, 3, S, S), uint8, or floats from 0 to 1."""
    beside = path.with_suffix(".json")
    try:
        written = json.loads(beside.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        written = None
    if not isinstance(written, dict):
        example = json.dumps({"format": "rows", "verticals": ["lamps", "sofas"]})
        raise BadInputError(f"{path}: say what it gives in {beside}, for example {example}; see docs/detect.md")
    said = from_plain(ForeignOutput, written, where=str(beside))
    form, verticals = said.format, said.verticals
    config = DetectorConfig(network=path.name, verticals=verticals, least_score=0.5)
    session = open_session(path, threads)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    wanted, width = (3, 4) if form == "boxes-scores-labels" else (1, 6)
    shape = inputs[0].shape if len(inputs) == 1 and inputs[0].type in _PIXELS else []
    side = shape[2] if len(shape) == 4 else None
    fixed = [(one, other) for one, other in zip(shape, (1, 3, side, side), strict=False) if isinstance(one, int)]
    if not (isinstance(side, int) and all(one == other for one, other in fixed)):
        raise BadInputError(
            f"{path}: its input must be one photo (1, 3, S, S) of a fixed size S, bytes or 32-bit floats; export it so"
        )
    if len(outputs) < wanted:
        raise BadInputError(f"{path}: the format {form} has {wanted} outputs; this one has {len(outputs)}")

    def of_one(photo: np.ndarray) -> Answer:
        pixels = photo if "uint8" in inputs[0].type else (photo / 255).astype(np.float32)
        found = [np.asarray(one) for one in session.run(None, {inputs[0].name: pixels})]
        is_table = found[0].ndim > 1 and found[0].shape[-1] == width
        if is_table and form == "rows":
            found = np.split(found[0].reshape(-1, width), [4, 5], axis=1)
        if not (is_table and found[0].size == 4 * found[1].size == 4 * found[2].size):
            raise BadInputError(f"{path}: its output does not have the format {form}; see docs/detect.md")
        boxes, scores, labels = found[0].reshape(-1, 4), found[1].ravel(), found[2].ravel()
        real = np.isfinite(boxes).all(1) & np.isfinite(scores) & np.isfinite(labels)
        boxes, scores, labels = boxes[real], scores[real], labels[real]
        sure = scores > config.least_score
        if (scores > 1.001).any() or (sure.any() and boxes[sure].max() <= 1):
            raise BadInputError(f"{path}: scores must go from 0 to 1, and boxes be in pixels; export it so")
        return one_label(boxes, scores, labels.astype(np.int64), len(verticals))

    known_by = fingerprint(path.read_bytes(), to_plain(said))
    config = replace(config, image_size_px=side)
    return Detector("onnx (foreign)", config, known_by, lambda batch: [of_one(photo[None]) for photo in batch])
