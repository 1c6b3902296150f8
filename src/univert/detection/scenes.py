"""Scenes to learn from and to measure on: opened from any source, and what a network sees of each as targets."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from univert.core.errors import BadInputError
from univert.core.files import fingerprint, write_atomic
from univert.core.threads import decoding_threads, map_ahead
from univert.data.build import BuildReport, build_catalogue
from univert.data.catalogue import Catalogue, is_catalogue
from univert.data.decode import check_image, decode_rgb
from univert.data.readers import count_rows, open_source
from univert.data.transforms import Augmentation, Preprocessing, View, view_rng
from univert.detection.boxes import Boxes, clip, to_square
from univert.detection.engine import Detector
from univert.detection.pasting import PastingConfig, pasted_scenes
from univert.metrics.detection import DetectionFigures, Found, Truth, detection_figures

LEAST_SEEN = 0.4
"""An item of which a view shows less than this share of the box is ignored there."""
LEAST_SCORE = 0.02
"""Answers that are less sure are not measured."""


def open_scenes(
    source: Path | str, work: Path, *, pasting: PastingConfig, seed: int = 0, skip_bad: bool = False
) -> tuple[Catalogue, BuildReport | None]:
    """A catalogue of scenes from whatever holds some.

    Args:
        source: a catalogue with scenes; a manifest with `items`; COCO's JSON; or a catalogue of single products, of
            which scenes are made by cut and paste.
        work: a folder for the catalogue that has to be built, and that is used again while the source is the same.
        pasting: how they are made.
        seed: of cut and paste.
        skip_bad: leave bad scenes out.

    Returns:
        the catalogue, and what was built, if anything was.

    Raises:
        BadInputError: there are no scenes, or bad ones that are not to be left out.
    """
    source = Path(source)
    products = None
    if is_catalogue(source):
        opened = Catalogue.open(source)
        if opened.in_scene.any():
            return Catalogue.open(source, scenes=True), None
        products, key = opened, fingerprint(opened.fingerprint, vars(pasting), seed)
    elif source.is_file():
        key = fingerprint(str(source.absolute()), source.stat().st_mtime_ns, source.stat().st_size, skip_bad)
    else:
        raise BadInputError(f"{source}: no such scenes; give a catalogue, a manifest with items, or COCO's JSON")
    out, marker = work / "scenes.lance", work / "scenes.inputs.json"
    if out.exists() and marker.exists() and json.loads(marker.read_text()) == key:
        return Catalogue.open(out, scenes=True), None
    rows = open_source(source) if products is None else pasted_scenes(products, pasting, seed=seed)
    total = count_rows(source) if products is None else pasting.scenes
    report = build_catalogue(rows, out, skip_bad=skip_bad, overwrite=True, total=total)
    scenes = Catalogue.open(out, scenes=True)
    write_atomic(marker, json.dumps(key))
    return scenes, report


def photo_sizes(catalogue: Catalogue) -> list[tuple[int, int]]:
    """(width, height) of a catalogue's upright photos, in its order."""

    def size(position: int) -> tuple[int, int]:
        return check_image(catalogue.image_bytes([position])[0])

    return list(map_ahead(size, range(len(catalogue)), workers=decoding_threads(None)))


class SceneTargets:
    """The boxes and labels of the items that the network sees in a view of a scene.

    Args:
        scenes: the catalogue.
        verticals: names by label, from 0.
        preprocessing: from a photo to the network's square.
        augmentation: how views from 1 on are drawn, as in `univert.data.loading.ImageLoader`.
        seed: of the views.

    Attributes:
        sizes: (width, height) of each photo.

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
        self.sizes = photo_sizes(scenes)
        self._ids, self._items, self._ignored = scenes.column("id"), scenes.items(), scenes.ignored()
        self._numbers = {name: number for number, name in enumerate(verticals)}
        self._preprocessing, self._augmentation, self._seed = preprocessing, augmentation, seed
        self.of_view = lru_cache(maxsize=100_000)(self._of_view)

    def of_photo(self, position: int) -> Truth:
        """Boxes in pixels of the photo itself, labels from 0, and ignored boxes."""
        items = self._items[position]
        boxes = np.array([item.box_xyxy_px for item in items], np.float32).reshape(-1, 4)
        ignored = np.array(self._ignored[position], np.float32).reshape(-1, 4)
        return boxes, np.array([self._numbers[item.vertical] for item in items], np.int64), ignored

    def _of_view(self, position: int, view: int) -> Truth:
        """The same in pixels of the network's square in view number `view` (0: as it is)."""
        boxes, labels, ignored = self.of_photo(position)
        size, preprocessing = self.sizes[position], self._preprocessing
        if not view or self._augmentation is None:
            return to_square(boxes, size, preprocessing), labels, to_square(ignored, size, preprocessing)
        rng = view_rng(self._seed, str(self._ids[position]), view)
        shown = self._augmentation.view(size, preprocessing, rng)
        seen, shares = self._seen(boxes, shown)
        more, _ = self._seen(ignored, shown)
        whole = shares >= LEAST_SEEN
        return seen[whole], labels[whole], np.concatenate([more, seen[~whole]])

    def _seen(self, boxes: Boxes, shown: View) -> tuple[Boxes, np.ndarray]:
        """Boxes as far as a view shows them, and which share of each that is."""
        side = self._preprocessing.image_size_px
        x0, y0, x1, y1 = shown.box_xyxy_px
        scale = side / np.array([x1 - x0, y1 - y0] * 2)
        whole = np.asarray((boxes - np.array([x0, y0, x0, y0])) * scale, np.float32)
        seen = clip(whole, (side, side))
        if shown.flipped:
            seen[:, [0, 2]] = side - seen[:, [2, 0]]
        areas = [np.prod(one[:, 2:] - one[:, :2], axis=1) for one in (seen, whole)]
        return seen, areas[0] / np.maximum(areas[1], 1e-9)


def evaluate_detector(
    detector: Detector, scenes: Catalogue, *, advance: Callable[[int], None] = lambda done: None
) -> DetectionFigures:
    """Measure a detector on a catalogue of scenes.

    Raises:
        BadInputError: an item's vertical is none that the detector knows.
    """
    targets = SceneTargets(scenes, detector.verticals, detector.preprocessing)
    numbers = {name: number for number, name in enumerate(detector.verticals)}
    found: list[Found] = []
    for position in range(len(scenes)):
        photo = decode_rgb(scenes.image_bytes([position])[0])
        items = detector.detect([photo], least_score=LEAST_SCORE)[0]
        boxes = np.array([item.box_xyxy_px for item in items], np.float32).reshape(-1, 4)
        scores = np.array([item.score for item in items], np.float32)
        found.append((boxes, scores, np.array([numbers[item.vertical] for item in items], np.int64)))
        advance(1)
    return detection_figures([targets.of_photo(place) for place in range(len(scenes))], found, detector.verticals)
