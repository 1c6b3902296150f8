"""Scenes to learn from and to measure on, and what a network sees of each as targets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from univert.core.errors import BadInputError
from univert.core.files import fingerprint
from univert.core.run import Run
from univert.core.threads import decoding_threads, map_ahead
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.decode import check_image, decode_rgb
from univert.data.readers import open_source
from univert.data.rows import SourceProblem, SourceRow
from univert.data.transforms import Augmentation, Preprocessing, view_rng
from univert.detection.boxes import Answer, clip, in_photo
from univert.detection.engine import Detector
from univert.detection.pasting import PastingConfig, pasted_scenes
from univert.metrics.detection import LEAST_SCORE, DetectionFigures, Truth, detection_figures
from univert.models.runtime.engine import prepare_image

_log = logging.getLogger(__name__)

LEAST_SEEN = 0.4
"""An item of which a view shows less than this share of the box is ignored there."""


def open_scenes(source: Path | str, work: Path, pasting: PastingConfig, *, seed: int = 0) -> Catalogue:
    """The scenes of a catalogue, and others made by cut and paste of its pictures of single products.

    Beside real scenes the made ones are for training alone; none are made where the real ones to learn from are many.

    Args:
        source: the catalogue.
        work: a run folder for the catalogue that has to be built, and that is used again while the source is the same.
        pasting: how scenes are made.
        seed: of cut and paste.

    Raises:
        BadInputError: there is no catalogue, or it has no scenes and none can be made of it.
    """
    opened = Catalogue.open(source)
    pictures = opened.select(in_scene=False)
    real = Catalogue.open(source, scenes=True) if opened.in_scene.any() else None
    if real is not None:
        enough = len(real.select(split="train")) >= pasting.scenes
        if enough or "train" not in pictures.column("split"):
            return real
    out, run = work / "scenes.lance", Run(work)
    key = fingerprint(opened.fingerprint, vars(pasting), seed)
    if run.finished("scenes", key) is not None and out.exists():
        return Catalogue.open(out, scenes=True)
    made = pasted_scenes(pictures, pasting, seed=seed)
    if real is None:
        made = chain(pasted_scenes(pictures, pasting, split="val", seed=seed), made)
    try:
        rows: Iterator[SourceRow | SourceProblem] = chain([next(made)], made)
    except BadInputError as problem:
        if real is None:
            raise
        _log.warning("learning from the real scenes alone: %s", problem)
        return real
    if real is not None:
        known = open_source(source)
        rows = chain(rows, (row for row in known if isinstance(row, SourceProblem) or row.items is not None))
    build_catalogue(rows, out, overwrite=True)
    run.finish("scenes", key, {})
    return Catalogue.open(out, scenes=True)


class SceneTargets:
    """The boxes and labels of the items that the network sees in a view of a scene.

    Args:
        scenes: the catalogue.
        verticals: names by label, from 0.
        preprocessing: from a photo to the network's square.
        augmentation: how views from 1 on are drawn, as in `univert.data.loading.ImageLoader`.
        seed: of the views.

    Attributes:
        sizes: (width, height) of each upright photo.

    Raises:
        BadInputError: an item's vertical is none of those.
    """

    def __init__(
        self,
        scenes: Catalogue,
        verticals: Sequence[str],
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        unknown = [name for name in scenes.verticals if name not in verticals]
        if unknown:
            raise BadInputError(
                f"{scenes.path}: the detector does not know {', '.join(unknown)}; it knows {', '.join(verticals)}"
            )

        def size(position: int) -> tuple[int, int]:
            return check_image(scenes.image_bytes([position])[0])

        self.sizes = list(map_ahead(size, range(len(scenes)), workers=decoding_threads(None)))
        self._ids, self._items, self._ignored = scenes.column("id"), scenes.items(), scenes.ignored()
        self._numbers = {name: number for number, name in enumerate(verticals)}
        self._preprocessing, self._augmentation, self._seed = preprocessing, augmentation, seed

    def of_photo(self, position: int) -> Truth:
        """Boxes in pixels of the photo itself, labels from 0, and ignored boxes."""
        items = self._items[position]
        boxes = np.array([item.box_xyxy_px for item in items], np.float32).reshape(-1, 4)
        ignored = np.array(self._ignored[position], np.float32).reshape(-1, 4)
        return boxes, np.array([self._numbers[item.vertical] for item in items], np.int64), ignored

    def of_view(self, position: int, view: int) -> Truth:
        """The same in pixels of the network's square in view number `view` (0: as it is)."""
        boxes, labels, ignored = self.of_photo(position)
        size, preprocessing = self.sizes[position], self._preprocessing
        (x0, y0, x1, y1), flipped = preprocessing.frame_xyxy_px(size), False
        if view and self._augmentation is not None:
            rng = view_rng(self._seed, str(self._ids[position]), view)
            (x0, y0, x1, y1), flipped = self._augmentation.view(size, preprocessing, rng)
        side = preprocessing.image_size_px
        whole = np.concatenate([boxes, ignored]) - np.array([x0, y0, x0, y0])
        whole *= side / np.array([x1 - x0, y1 - y0] * 2, np.float32)
        seen = clip(whole, (side, side))
        areas, shown = (np.prod(one[:, 2:] - one[:, :2], axis=1) for one in (whole, seen))
        if flipped:
            seen[:, [0, 2]] = side - seen[:, [2, 0]]
        is_item = (shown >= LEAST_SEEN * areas) & (np.arange(len(seen)) < len(boxes))
        return seen[is_item], labels[is_item[: len(boxes)]], seen[~is_item]

    def figures(self, positions: Sequence[int], answers: Iterable[Answer]) -> DetectionFigures:
        """How well some scenes' items were found, from what was found in the network's square of each."""
        found = [
            in_photo(answer, self.sizes[position], self._preprocessing, LEAST_SCORE)
            for position, answer in zip(positions, answers, strict=True)
        ]
        return detection_figures([self.of_photo(position) for position in positions], found, list(self._numbers))


def evaluate_detector(
    detector: Detector, scenes: Catalogue, *, advance: Callable[[int], None] = lambda done: None
) -> DetectionFigures:
    """Measure a detector on a catalogue of scenes.

    Raises:
        BadInputError: there are no scenes, or an item's vertical is none that the detector knows.
    """
    if not len(scenes):
        raise BadInputError(f"{scenes.path}: no scenes in the split asked for; choose another")
    targets = SceneTargets(scenes, detector.verticals, detector.preprocessing)

    def answer(position: int) -> Answer:
        advance(1)
        square = prepare_image(detector.preprocessing, decode_rgb(scenes.image_bytes([position])[0]))
        return detector.answers(square[None])[0]

    return targets.figures(range(len(scenes)), map(answer, range(len(scenes))))
