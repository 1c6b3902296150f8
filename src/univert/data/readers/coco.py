"""COCO's JSON as a source of scenes: one file with photos, boxes and categories, beside a folder of photos."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from univert.core.errors import BadInputError
from univert.data.decode import BoxXyxyPx
from univert.data.readers.manifest import as_on_disk, is_file
from univert.data.rows import Item, SourceProblem, SourceRow, SourceRows
from univert.data.tables import cell_text


def read_coco(source: Path | str) -> SourceRows:
    """Read scenes from COCO's JSON for object detection (Lin et al., 2014), in the order of its `images`.

    Categories are verticals; boxes are [x, y, width, height] in pixels. `file_name` is looked for beside the file, in
    `images/` beside it and beside its folder, and in a folder named as the last part of the file's own name. Crowds
    (`iscrowd`) are ignored: neither items nor background. Where an image has `width` and `height`, they are those of
    the upright photo. An annotation may have a `product` besides, and an image a `split` and a `source`.

    Raises:
        BadInputError: there is no such file, or it is not COCO's JSON.
    """
    source = Path(source)
    try:
        content = json.loads(source.read_text(encoding="utf-8-sig"))
        images, annotations, categories = (list(content[key]) for key in ("images", "annotations", "categories"))
        verticals = {category["id"]: cell_text(category["name"]) or "" for category in categories}
    except FileNotFoundError:
        raise BadInputError(f"{source}: no such file; give COCO's JSON") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInputError(
            f"{source} is not COCO's JSON ({type(error).__name__}: {error}); "
            "it needs images, annotations and categories"
        ) from None
    if len(verticals) < len(categories):
        raise BadInputError(f"{source}: a category's id is listed twice; give each an id of its own")
    return _rows(source, images, annotations, verticals)


def _rows(
    source: Path, images: list[Any], annotations: list[Any], verticals: dict[Any, str]
) -> Iterator[SourceRow | SourceProblem]:
    folders = [source.parent, source.parent / "images", source.parent.parent / "images"]
    folders += [place / source.stem.rsplit("_", 1)[-1] for place in list(folders)]
    of_image: defaultdict[Any, list[Any]] = defaultdict(list)
    for annotation in annotations:
        of_image[_id(annotation, "image_id")].append(annotation)
    listed = set[Any]()
    for number, image in enumerate(images, start=1):
        origin, image_id = f"{source}: image {number}", _id(image, "id")
        name = None if image_id is None else cell_text(image.get("file_name"))
        if name is None:
            yield SourceProblem("bad value", origin, "no id or file_name", "give both")
            continue
        origin = f"{source}: {name}"
        if image_id in listed:
            yield SourceProblem("image listed twice", origin, f"id {image_id!r} is listed before", "remove one of them")
            continue
        listed.add(image_id)
        found = [_item(annotation, origin, verticals) for annotation in of_image.pop(image_id, [])]
        problem = next((one for one in found if isinstance(one, SourceProblem)), None)
        places = (folder / (as_on_disk(folder, name) or name) for folder in folders)
        yield problem or SourceRow(
            origin=origin,
            id=name,
            path=next(filter(is_file, places), folders[0] / name),
            split=cell_text(image.get("split")),
            source=cell_text(image.get("source")),
            items=tuple(one for one in found if isinstance(one, Item)),
            ignored=tuple(one for one in found if isinstance(one, tuple)),
            size=_size(image),
        )
    for image_id, left in of_image.items():
        detail = f"annotations of image {image_id!r}, which is not listed: {len(left)}"
        yield SourceProblem("annotation without photo", str(source), detail, "list the image, or remove them")


def _id(entry: Any, key: str) -> float | str | None:
    """A number or text by which an entry is known, or refers to another; None where there is none."""
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, int | float | str) else None


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    width, height = image.get("width"), image.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) and width and height else None


def _item(annotation: Any, origin: str, verticals: dict[Any, str]) -> Item | BoxXyxyPx | SourceProblem:
    """The item that an annotation tells of, the box of a crowd, or what is wrong with it."""
    try:
        x, y, width, height = (float(value) for value in annotation["bbox"])
    except (KeyError, TypeError, ValueError, OverflowError):
        given = annotation.get("bbox")
        return SourceProblem("bad box", origin, f"bbox {given!r}", "write [x, y, width, height] in pixels")
    box = (x, y, x + width, y + height)
    if annotation.get("iscrowd"):
        return box
    category = _id(annotation, "category_id")
    if category not in verticals:
        known = ", ".join(map(str, verticals))
        detail = f"category_id {annotation.get('category_id')!r}"
        return SourceProblem("unknown vertical", origin, detail, f"use one of {known[:80]}")
    return Item(box_xyxy_px=box, vertical=verticals[category], product=cell_text(annotation.get("product")))
