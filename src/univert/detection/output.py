"""What was found in photos, written down: COCO's JSON, crops, rows of a catalogue, pictures with boxes."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from univert.core.errors import BadInputError
from univert.core.files import folder_name, write_atomic
from univert.data.decode import decode_rgb
from univert.data.image_problem import ImageProblem
from univert.data.readers.folder import IMAGE_SUFFIXES
from univert.data.rows import Item, ProblemLog, SourceProblem, SourceRow
from univert.detection.engine import Detector, FoundItem


@dataclass(frozen=True, kw_only=True, slots=True)
class PhotoItems:
    """A photo's file, its (width, height) upright, and what was found in it."""

    path: Path
    size: tuple[int, int]
    items: list[FoundItem]


def photo_files(places: Sequence[Path]) -> list[Path]:
    """The files among some files and folders; of a folder, those that are named as photos and not hidden, in order.

    Raises:
        BadInputError: there is nothing at a place, or no photo at all.
    """
    found: list[Path] = []
    for place in places:
        if not place.exists():
            raise BadInputError(f"{place}: no such photo or folder")
        found += sorted(path for path in place.rglob("*") if _is_photo(path, place)) if place.is_dir() else [place]
    if not found:
        raise BadInputError(f"no photos in {', '.join(map(str, places))}; they end in {', '.join(IMAGE_SUFFIXES)}")
    return found


def _is_photo(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden and not path.is_dir()


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


def as_coco(photos: Sequence[PhotoItems], verticals: Sequence[str], place: Path | None = None) -> dict[str, Any]:
    """What was found as COCO's JSON, each annotation with its score; `univert catalogue build` reads it as scenes.

    Photos are named as seen from the folder of `place`, where it will be written; else as they were given.
    """
    images, annotations = [], list[dict[str, Any]]()
    for number, photo in enumerate(photos, start=1):
        width, height = photo.size
        name = str(photo.path)
        if place is not None and not photo.path.is_absolute():
            name = os.path.relpath(name, place.parent.resolve())
        images.append({"id": number, "file_name": name, "width": width, "height": height})
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
                    "vertical_score": round(item.vertical_score, 4),
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(verticals, start=1)]
    return {"images": images, "categories": categories, "annotations": annotations}


def as_rows(photos: Sequence[PhotoItems], *, least_vertical_score: float = 0.0) -> Iterator[SourceRow]:
    """What was found as scenes whose items have no product, to train on or to index.

    Items whose vertical is less sure than `least_vertical_score` are left out.
    """
    for photo in photos:
        items = [item for item in photo.items if item.vertical_score >= least_vertical_score]
        if items:
            yield SourceRow(
                origin=str(photo.path),
                path=photo.path,
                split="train",
                source="photo",
                items=tuple(Item(box_xyxy_px=item.box_xyxy_px, vertical=item.vertical) for item in items),
            )


def write_crops(photos: Sequence[PhotoItems], folder: Path) -> None:
    """Write each item as a JPEG in the folder of its vertical, which `univert catalogue build` reads."""
    for number, photo in enumerate(photos, start=1):
        for place, item in enumerate(photo.items, start=1):
            crop = decode_rgb(photo.path.read_bytes(), box_xyxy_px=item.box_xyxy_px)
            name = f"{number:05d}-{photo.path.stem[:60]}-{place}.jpg"
            write_atomic(folder / _folder(item.vertical) / name, _jpeg(crop))


def _folder(vertical: str) -> str:
    """A vertical's own name where a folder may have it, so that it is read again as it was."""
    fits = vertical.isprintable() and "/" not in vertical and len(vertical.encode()) <= 200
    return vertical if fits and not vertical.startswith(".") else folder_name(vertical)


def write_drawn(photos: Sequence[PhotoItems], verticals: Sequence[str], folder: Path) -> None:
    """Write photos with a frame and a name on each item, the surest on top."""
    for number, photo in enumerate(photos, start=1):
        image = decode_rgb(photo.path.read_bytes())
        pen = ImageDraw.Draw(image)
        size = max(10, min(image.size) // 32)
        for item in reversed(photo.items):
            colour = f"hsv({360 * verticals.index(item.vertical) // len(verticals)}, 90%, 85%)"
            x0, y0, x1, y1 = item.box_xyxy_px
            pen.rectangle((x0, y0, x1, y1), outline=colour, width=max(2, size // 6))
            corner, text = (x0, max(0, y0 - size)), f"{item.vertical} {item.score:.2f}"
            pen.rectangle(pen.textbbox(corner, text, font_size=size), fill=colour)
            pen.text(corner, text, fill="white", font_size=size)
        write_atomic(folder / f"{number:05d}-{photo.path.stem[:60]}.jpg", _jpeg(image))


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
