from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.detection.rooms import VERTICALS, drawn_scene, drawn_scenes, encoded
from univert.core.errors import BadInputError
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.info import catalogue_info
from univert.data.readers import open_source
from univert.data.rows import CatalogueProblemsError, Item, SourceRow
from univert.data.transforms import Augmentation, Preprocessing, view_rng
from univert.detection.engine import load_detector
from univert.detection.pasting import PastingConfig
from univert.detection.scenes import SceneTargets, evaluate_detector, open_scenes

BOX = [4.0, 4.0, 20.0, 16.0]


def test_scenes_in_a_catalogue_keep_their_items(scenes: Catalogue) -> None:
    rows = {row.id: row for row in drawn_scenes()}
    assert scenes.is_scenes
    assert scenes.verticals == list(VERTICALS)
    for name, items in zip(scenes.column("id"), scenes.items(), strict=True):
        assert items == rows[name].items
    assert len(scenes.select(split="train")) == 12


def test_info_counts_the_items(scenes: Catalogue) -> None:
    info = catalogue_info(Catalogue.open(scenes.path))
    count = sum(len(items) for items in scenes.items())
    assert info.images == info.items == sum(vertical.images for vertical in info.verticals) == count
    assert info.warnings == []


def test_a_catalogue_of_products_holds_no_scenes(catalogue: Catalogue) -> None:
    assert not catalogue.is_scenes
    with pytest.raises(BadInputError, match="scenes were not asked for"):
        catalogue.items()
    with pytest.raises(BadInputError, match="scenes with items are needed"):
        Catalogue.open(catalogue.path, scenes=True)


def item(**changes: Any) -> Item:
    return Item(**{"box_xyxy_px": tuple(BOX), "vertical": "discs", **changes})


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"items": ()}, "no items"),
        ({"items": (item(vertical=""),)}, "no vertical"),
        ({"items": (item(box_xyxy_px=(9, 9, 5, 20)),)}, "degenerate box"),
        ({"items": (item(box_xyxy_px=(0, 0, float("nan"), 9)),)}, "degenerate box"),
        ({"items": (item(box_xyxy_px=(0, 0, 200, 9)),)}, "box outside"),
        ({"items": (item(),), "vertical": "discs"}, "scene with a product"),
        ({"items": (item(),), "image": b"\xff\xd8\xff broken"}, "damaged"),
        ({"items": (item(),), "image": None, "path": Path("nowhere.jpg")}, "missing file"),
        ({"items": (item(product="a", vertical="squares"),)}, "product in two verticals"),
        ({"items": (item(product="a"),), "split": "test"}, "product in two splits"),
    ],
)
def test_bad_scenes_are_counted_and_named_or_left_out(tmp_path: Path, changes: dict[str, Any], kind: str) -> None:
    good = SourceRow(
        origin="good", id="good", image=encoded(drawn_scene(0)[0]), split="train", items=(item(product="a"),)
    )
    values = {"image": encoded(drawn_scene(1)[0]), "split": "train", **changes}
    bad = SourceRow(origin="bad.jpg", id="bad", **values)
    with pytest.raises(CatalogueProblemsError, match=r"bad\.jpg") as caught:
        build_catalogue([good, bad], tmp_path / "scenes.lance")
    assert caught.value.counts == {kind: 1}
    report = build_catalogue([good, bad], tmp_path / "scenes.lance", skip_bad=True)
    assert (report.images, report.rejected) == (1, 1)
    assert Catalogue.open(tmp_path / "scenes.lance", scenes=True).items()[0][0].product == "a"


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_the_boxes_of_a_view_are_where_its_pixels_are(tmp_path: Path, fit: Any) -> None:
    """Each item is painted in a colour of its own, and looked for in the view."""
    size, preprocessing = (120, 80), Preprocessing(image_size_px=160, fit=fit)
    augmentation = Augmentation(min_scale=0.4, jitter=0.0)
    boxes = [(10, 10, 40, 60), (50, 5, 110, 30), (70, 40, 90, 78)]
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        canvas[y0:y1, x0:x1, number] = 255
    items = tuple(Item(box_xyxy_px=box, vertical="discs") for box in boxes)
    row = SourceRow(origin="a", id="a", image=encoded(Image.fromarray(canvas)), items=items)
    build_catalogue([row], tmp_path / "s.lance")
    catalogue = Catalogue.open(tmp_path / "s.lance", scenes=True)
    targets = SceneTargets(catalogue, VERTICALS, preprocessing, augmentation, seed=3)
    flipped = set()
    for view in range(1, 9):
        square = augmentation.apply(Image.fromarray(canvas), preprocessing, view_rng(3, "a", view))
        flipped.add(augmentation.view(size, preprocessing, view_rng(3, "a", view))[1])
        found, labels, ignored = targets.of_view(0, view)
        assert len(found) == len(labels) == 3 - len(ignored)
        for box in found:
            x0, y0, x1, y1 = box
            inside = square[int(y0 + y1) // 2, int(x0 + x1) // 2]
            seen = np.argwhere(square[..., inside.argmax()] - square.min(2).astype(int) > 127)
            (top, left), (bottom, right) = seen.min(0), seen.max(0) + 1
            assert np.abs(np.array([left, top, right, bottom]) - box).max() <= 1.5
    assert flipped == {False, True}
    assert len(targets.of_view(0, 0)[0]) == 3


def coco_of(folder: Path, **changes: Any) -> Path:
    """COCO's JSON of two drawn scenes, beside `images/`."""
    (folder / "images").mkdir()
    images, annotations = [], []
    for number in range(2):
        picture, items = drawn_scene(number)
        (folder / "images" / f"{number}.png").write_bytes(encoded(picture))
        size = {"width": picture.width, "height": picture.height if number else None}
        images.append({"id": number, "file_name": f"{number}.png", **size})
        for one in items:
            x0, y0, x1, y1 = one.box_xyxy_px
            category = VERTICALS.index(one.vertical)
            annotations.append({"image_id": number, "category_id": category, "bbox": [x0, y0, x1 - x0, y1 - y0]})
    crowd = {"image_id": 0, "category_id": 0, "bbox": BOX, "iscrowd": 1}
    content = {
        "images": images,
        "annotations": [*annotations, crowd],
        "categories": [{"id": number, "name": name} for number, name in enumerate(VERTICALS)],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps(content | {key: value(content[key]) for key, value in changes.items()}))
    return path


def scenes_of(source: Path, *, skip_bad: bool = False) -> Catalogue:
    """The scenes of a file, as `univert catalogue build` makes them."""
    out = source.parent / "scenes.lance"
    build_catalogue(open_source(source), out, skip_bad=skip_bad, overwrite=True)
    return Catalogue.open(out, scenes=True)


def test_cocos_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = coco_of(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b'"file_name": "', b'"file_name": ".\\\\'))
    opened = scenes_of(path)
    assert opened.ignored() == [((4, 4, 24, 20),), ()]
    assert opened.items() == [drawn_scene(number)[1] for number in range(2)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": lambda old: [*old, {"image_id": 1, "category_id": 7, "bbox": BOX}]}, "1 x unknown vertical"),
        ({"annotations": lambda old: [*old, {"image_id": 1, "category_id": 0, "bbox": [1, 2]}]}, "1 x bad box"),
        ({"annotations": lambda old: [*old, {"image_id": 9, "category_id": 0, "bbox": BOX}]}, "annotation without"),
        ({"annotations": lambda old: [one for one in old if one["image_id"]]}, "1 x no items"),
        (
            {"annotations": lambda old: [*old, {"image_id": 1, "category_id": 0, "bbox": [1, 2, 10**400, 9]}]},
            "1 x bad box",
        ),
        ({"annotations": lambda old: [*old, {"image_id": [1], "category_id": 0, "bbox": BOX}]}, "annotation without"),
        ({"annotations": lambda old: [*old, "discs"]}, "annotation without"),
        ({"annotations": lambda old: [*old, {"image_id": 1, "category_id": [0], "bbox": BOX}]}, "1 x unknown vertical"),
        ({"images": lambda old: [{**old[0], "height": 9}, old[1]]}, "1 x another size"),
        ({"images": lambda old: [*old, {"id": 5}]}, "1 x bad value"),
        ({"images": lambda old: [*old, {"id": [5], "file_name": "0.png"}]}, "1 x bad value"),
        ({"images": lambda old: [*old, old[0]]}, "1 x image listed twice"),
        ({"images": lambda old: [{**old[0], "split": 3}, old[1]]}, "1 x unknown split"),
        ({"images": lambda old: [*old[:1], {"id": 1, "file_name": "gone.png"}]}, "1 x missing file"),
        ({"images": lambda old: [*old[:1], {"id": 1, "file_name": "g" * 400}]}, "1 x unreadable"),
        ({"categories": lambda old: [{**old[0], "name": None}, *old[1:]]}, "x no vertical"),
        ({"categories": lambda old: [{"name": "discs"}]}, "is not COCO's JSON"),
        ({"categories": lambda old: [*old, old[0]]}, "a category's id is listed twice"),
    ],
)
def test_what_is_wrong_with_cocos_json_is_counted_and_named(tmp_path: Path, changes: Any, message: str) -> None:
    path = coco_of(tmp_path, **changes)
    with pytest.raises(BadInputError, match=message):
        scenes_of(path)
    if " x " in message:
        assert 1 <= len(scenes_of(path, skip_bad=True)) <= 2


def test_lists_in_lists_without_end_are_not_cocos_json(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(BadInputError, match="is not COCO's JSON"):
        open_source(tmp_path / "deep.json")


@pytest.mark.parametrize(
    "text",
    [
        '[{"box": [1, 2, 3]}]',
        '[{"vertical": "discs"}]',
        '[{"box": [1, 2, 3, 4], "vertical": ["discs"]}]',
        f'[{{"box": [1, 2, {"9" * 400}, 4], "vertical": "discs"}}]',
        "none",
        "[3]",
        "[" * 100_000,
    ],
)
def test_a_manifest_may_have_items(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.png").write_bytes(encoded(drawn_scene(0)[0]))
    good = json.dumps([{"box": BOX, "vertical": "discs", "product": 7}])
    manifest = tmp_path / "scenes.jsonl"
    manifest.write_text(json.dumps({"path": "a.png", "items": good, "ignored": [[1, 2, 3, 4]]}) + "\n")
    opened = scenes_of(manifest)
    assert (opened.items(), opened.ignored()) == ([(item(product="7"),)], [((1, 2, 3, 4),)])
    manifest.write_text(json.dumps({"path": "a.png", "items": text}) + "\n")
    with pytest.raises(BadInputError, match="1 x bad items"):
        scenes_of(manifest)


def test_scenes_are_made_of_products_once(catalogue: Catalogue, scenes: Catalogue, tmp_path: Path) -> None:
    config = PastingConfig(scenes=6, width_px=96)
    assert open_scenes(scenes.path, tmp_path, config).fingerprint == scenes.fingerprint
    assert not list(tmp_path.iterdir())
    made = open_scenes(catalogue.path, tmp_path, config)
    assert (len(made), made.is_scenes) == (7, True)
    written = (tmp_path / "scenes.lance").stat().st_ino
    assert open_scenes(catalogue.path, tmp_path, config).fingerprint == made.fingerprint
    assert (tmp_path / "scenes.lance").stat().st_ino == written
    assert open_scenes(catalogue.path, tmp_path, config, seed=1).fingerprint != made.fingerprint


@pytest.mark.parametrize(
    ("scenes_wanted", "plain", "counts"), [(15, True, (27, 3)), (15, False, (12, 3)), (12, True, (12, 3))]
)
def test_few_scenes_are_joined_by_some_of_the_products_beside_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, scenes_wanted: int, plain: bool, counts: tuple[int, int]
) -> None:
    pixels = np.full((40, 40, 3), 250, np.uint8)
    pixels[10:30, 8:28] = (200, 20, 20)
    if not plain:
        pixels = np.random.default_rng(0).integers(0, 256, pixels.shape).astype(np.uint8)
    picture = SourceRow(
        origin="a", id="a", image=encoded(Image.fromarray(pixels)), vertical="discs", product="a", split="train"
    )
    source = tmp_path / "both.lance"
    build_catalogue([*drawn_scenes(), picture], source)
    found = open_scenes(source, tmp_path / "work", PastingConfig(scenes=scenes_wanted, width_px=96))
    splits = found.column("split").tolist()
    assert (splits.count("train"), splits.count("val")) == counts
    assert ("from the real scenes alone" in caplog.text) == (not plain)
    real = Catalogue.open(source, scenes=True)
    assert set(zip(real.column("id"), map(str, real.items()), strict=True)) <= set(
        zip(found.column("id"), map(str, found.items()), strict=True)
    )


def test_a_detector_is_measured_on_scenes_of_verticals_that_it_knows(scenes: Catalogue, saved: Path) -> None:
    figures = evaluate_detector(load_detector(saved), scenes.select(split="test"))
    assert figures.photos == 3
    assert figures.items == sum(len(items) for items in scenes.select(split="test").items())
    with pytest.raises(BadInputError, match="no scenes in the split asked for"):
        evaluate_detector(load_detector(saved), scenes.select(split="test").select(split="train"))
    with pytest.raises(BadInputError, match="the detector does not know squares; it knows discs"):
        SceneTargets(scenes, ["discs"], Preprocessing())
