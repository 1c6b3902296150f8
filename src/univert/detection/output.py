"""What was found in photos, written down: COCO's JSON, crops, rows of a catalogue, pictures with boxes."""

from __future__ import annotations

import colorsys
import hashlib
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ImageDraw

from univert.core.errors import BadInputError
from univert.core.files import folder_name, write_atomic
from univert.data.decode import decode_rgb
from univert.data.image_problem import ImageProblem
from univert.data.rows import Item, ProblemLog, SourceProblem, SourceRow
from univert.detection.engine import Detector, FoundItem

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True, slots=True)
class PhotoItems:
    """A photo's file, its (width, height) upright, and what was found in it."""

    path: Path
    size: tuple[int, int]
    items: list[FoundItem]


def photo_files(places: Sequence[Path]) -> list[Path]:
    """The files among some files and folders; of a folder, those that are named as photos, in order.

    Raises:
        BadInputError: there is nothing at a place, or no photo at all.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            found += sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES)
        elif place.is_file():
            found.append(place)
        else:
            raise BadInputError(f"{place}: no such photo or folder")
    if not found:
        raise BadInputError(f"no photos in {', '.join(map(str, places))}; they end in {', '.join(SUFFIXES)}")
    return found


def find_all(
    detector: Detector,
    paths: Sequence[Path],
    *,
    least_score: float | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> tuple[list[PhotoItems], ProblemLog]:
    """What a detector finds in files, and why some of them cannot be used."""
    found, log = list[PhotoItems](), ProblemLog()
    for path in paths:
        advance(1)
        try:
            photo = decode_rgb(path.read_bytes())
        except ImageProblem as problem:
            log.reject([SourceProblem(problem.kind, str(path), problem.detail, problem.fix)])
        except OSError as error:
            log.reject([SourceProblem("unreadable", str(path), str(error.strerror), "check the path and its rights")])
        else:
            items = detector.detect([photo], least_score=least_score)[0]
            found.append(PhotoItems(path=path, size=photo.size, items=items))
    return found, log


def as_coco(photos: Sequence[PhotoItems], verticals: Sequence[str]) -> dict[str, Any]:
    """What was found as COCO's JSON, each annotation with its score; `univert catalogue build` reads it as scenes."""
    annotations: list[dict[str, Any]] = []
    for number, photo in enumerate(photos, start=1):
        for item in photo.items:
            x0, y0, x1, y1 = (round(side, 2) for side in item.box_xyxy_px)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": verticals.index(item.vertical) + 1,
                    "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
                    "area": round((x1 - x0) * (y1 - y0), 2),
                    "iscrowd": 0,
                    "score": round(item.score, 4),
                }
            )
    return {
        "images": [
            {"id": number, "file_name": str(photo.path), "width": photo.size[0], "height": photo.size[1]}
            for number, photo in enumerate(photos, start=1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(verticals, start=1)],
        "annotations": annotations,
    }


def as_rows(photos: Sequence[PhotoItems]) -> Iterator[SourceRow]:
    """What was found as scenes whose items have no product, to train on or to index."""
    for photo in photos:
        if photo.items:
            yield SourceRow(
                origin=str(photo.path),
                path=photo.path,
                split="train",
                source="photo",
                items=tuple(Item(box_xyxy_px=item.box_xyxy_px, vertical=item.vertical) for item in photo.items),
            )


def write_crops(photos: Sequence[PhotoItems], folder: Path) -> None:
    """Write each item as a JPEG in the folder of its vertical, which `univert catalogue build` reads."""
    for photo in photos:
        image = decode_rgb(photo.path.read_bytes())
        mark = hashlib.blake2b(str(photo.path.absolute()).encode(), digest_size=4).hexdigest()
        for number, item in enumerate(photo.items, start=1):
            x0, y0, x1, y1 = item.box_xyxy_px
            buffer = io.BytesIO()
            image.crop((int(x0), int(y0), math.ceil(x1), math.ceil(y1))).save(buffer, "JPEG", quality=95)
            name = f"{photo.path.stem[:60]}-{mark}-{number}.jpg"
            write_atomic(folder / folder_name(item.vertical) / name, buffer.getvalue())


def draw_all(photos: Sequence[PhotoItems], verticals: Sequence[str], folder: Path) -> None:
    """Write photos with a frame and a name on each item."""
    for number, photo in enumerate(photos, start=1):
        write_atomic(folder / f"{number:05d}-{photo.path.stem[:60]}.jpg", draw(photo, verticals))


def draw(photo: PhotoItems, verticals: Sequence[str]) -> bytes:
    """The photo with a frame and a name on each item, as JPEG."""
    image = decode_rgb(photo.path.read_bytes())
    pen = ImageDraw.Draw(image)
    size = max(10, min(image.size) // 32)
    for item in sorted(photo.items, key=lambda item: item.score):
        hue = verticals.index(item.vertical) / max(1, len(verticals))
        colour = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.9, 0.85))
        x0, y0, x1, y1 = item.box_xyxy_px
        pen.rectangle((x0, y0, x1, y1), outline=colour, width=max(2, size // 6))
        text = f"{item.vertical} {item.score:.2f}"
        corner = (x0, max(0, y0 - size))
        pen.rectangle(pen.textbbox(corner, text, font_size=size), fill=colour)
        pen.text(corner, text, fill="white", font_size=size)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
