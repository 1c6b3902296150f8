"""The tool that draws the home sample: everything but Blender's part."""

from __future__ import annotations

import io
import itertools
import json
import sys
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from home import jobs, layout, models, pack, photo, placing, scenes, visibility
from home import names as home_names
from home.models import Model, Product
from home.placing import Placed

ENTRY = """
id#1=Blend Swap CC-0#armchair
name#1=Armchair 10\\u20ac
category#1=Living room
model#1=/blendswap-cc-0/armchair/armchair.obj
width#1=59.4
depth#1=62.7
height#1=105
dropOnTopElevation#1=-1
elevation#1=12
creator#1=Absfrm
"""


def model(
    name: str, vertical: str = "seating", size: tuple[float, float, float] = (0.5, 0.5, 0.8), split: str = "train"
) -> Model:
    return Model(
        library="Scopia", name=name, title=name, category="Living room", creator="Scopia", obj="", size_m=size,
        elevation_m=0, top_m=size[2], rotation=None, vertical=vertical, split=split,
    )  # fmt: skip


def block(size: tuple[float, float, float], count: int = 1500) -> np.ndarray:
    """Points on the surface of a block that stands on the origin."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, 0.5, (count, 3))
    axis = rng.integers(0, 3, count)
    points[np.arange(count), axis] = np.sign(points[np.arange(count), axis]) / 2
    return (points + np.array([0, 0, 0.5])) * np.array(size)


@pytest.fixture(scope="module")
def shop() -> list[Product]:
    sizes = {
        "seating": (0.5, 0.5, 0.9), "sofas": (1.8, 0.9, 0.8), "tables": (1.2, 0.7, 0.7), "tableware": (0.2, 0.2, 0.2),
        "hobby": (0.3, 0.2, 0.3), "outdoor": (2.0, 1.5, 1.5), "storage": (0.9, 0.4, 1.2),
    }  # fmt: skip
    return [
        Product(model(f"{vertical}{number}{split}", vertical, size, split))
        for vertical, size in sizes.items()
        for split in ("train", "val", "test")
        for number in range(6)
    ]


def points_of(shop: list[Product]) -> placing.Points:
    sizes = {product.model.key: product.model.size_m for product in shop}
    return lambda key: block(sizes[key])


def test_every_model_of_the_table_has_a_vertical_or_a_reason_to_be_left_out() -> None:
    table = models.read_table()
    assert len(table) == 820
    assert all(bool(vertical) != bool(reason) for vertical, reason in table.values())
    verticals = Counter(vertical for vertical, _ in table.values() if vertical)
    assert 12 <= len(verticals) <= 15
    assert sum(verticals.values()) == 783


def test_a_library_is_read_and_a_model_without_a_row_refused(tmp_path: Path) -> None:
    def write(text: str) -> None:
        with zipfile.ZipFile(tmp_path / "BlendSwap-CC-0.sh3f", "w") as archive:
            archive.writestr(models.PROPERTIES, text.encode("latin-1"))

    write(ENTRY)
    (found,) = models.read_models(tmp_path)
    assert (found.key, found.brand, found.style) == ("blendswap-cc-0-armchair", "blendswap-cc-0", "living-room")
    assert (found.title, found.vertical, found.top_m) == ("Armchair 10€", "sofas", None)
    assert found.size_m == pytest.approx((0.594, 0.627, 1.05))
    assert found.elevation_m == pytest.approx(0.12)
    write(ENTRY.replace("#armchair", "#unheardof"))
    with pytest.raises(ValueError, match="'unheardof'"):
        models.read_models(tmp_path)


def test_names_follow_models_by_number_and_finishes_are_tagged(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "BlendSwap-CC-0.sh3f", "w") as archive:
        archive.writestr(models.PROPERTIES, ENTRY + "tags#1=Blend Swap, Seat\nid#2=Blend Swap CC-0#bed1\nname#2=Bed\n")
        french = "name#1=Fauteuil\\u0020club\ntags#1=Si\\u00e8ge\nname#2=bed\ntags#2=\n"
        archive.writestr("PluginFurnitureCatalog_fr.properties", french)
    found = home_names.read_names(tmp_path)
    assert found["blendswap-cc-0-armchair"] == [
        {"language": "en", "name": "Armchair 10€", "tags": ["Seat"]},
        {"language": "fr", "name": "Fauteuil club", "tags": ["Siège"]},
    ]
    assert found["blendswap-cc-0-bed1"] == [{"language": "en", "name": "Bed", "tags": []}]
    sofa = model("armchair")
    rows = list(home_names.name_rows({sofa.key: found["blendswap-cc-0-armchair"]}, [Product(sofa, "navy")]))
    assert [(row["product"], row["tags"]) for row in rows] == [
        ("scopia-armchair-navy", ["Seat", "navy"]),
        ("scopia-armchair-navy", ["Siège"]),
    ]
    assert home_names.language_of("PluginFurnitureCatalog_pt_PT.properties") == "pt-PT"


def test_splits_take_their_share_of_every_vertical_whatever_the_order() -> None:
    names = {f"{vertical}-{number}": vertical for vertical in ("a", "b") for number in range(40)}
    splits = models.assign_splits(names)
    assert splits == models.assign_splits(dict(reversed(names.items())))
    for vertical in ("a", "b"):
        assert Counter(splits[name] for name in names if names[name] == vertical) == {"train": 20, "val": 8, "test": 12}


def test_finishes_are_few_and_unlike_the_model_s_own_colour() -> None:
    shop = [model(str(number)) for number in range(200)]
    made = [models.finishes(it, models.PALETTE["white"]) for it in shop]
    assert 0.1 < sum(map(bool, made)) / len(made) < 0.35
    assert {len(names) for names in made} == {0, 2}
    assert "white" not in {*itertools.chain(*made)}
    assert models.finishes(model("a", "appliances"), (0, 0, 0)) == []
    colours = {it.key: models.PALETTE["white"] for it in shop[1:]}
    products = models.products_of(shop, colours)
    assert shop[0].key not in {product.model.key for product in products}
    assert len({product.key for product in products}) == len(products)


CAMERA = visibility.Camera((0, 0, 1.5), 0, 0, 1.0, (400, 300))


@pytest.mark.parametrize(
    ("camera", "point", "pixel"),
    [
        (CAMERA, (0, 4, 1.5), (200, 150, 4)),
        (CAMERA, (1, 4, 2.5), (300, 50, 4)),
        (visibility.Camera((0, 0, 0), np.pi / 2, 0, 1.0, (400, 300)), (-4, 1, 0), (300, 150, 4)),
        (visibility.Camera((0, 0, 0), 0, -np.pi / 2, 0.5, (300, 400)), (1, 1, -4), (200, 150, 4)),
    ],
)
def test_projection(camera: visibility.Camera, point: tuple[float, ...], pixel: tuple[float, ...]) -> None:
    assert camera.project(np.array([point]))[0] == pytest.approx(pixel)


@pytest.mark.parametrize("covered", [0.0, 0.25, 0.5, 0.9])
def test_share_seen_is_what_is_not_covered(covered: float) -> None:
    rng = np.random.default_rng(1)
    pixels = np.column_stack([rng.uniform(100, 200, 6000), rng.uniform(50, 150, 6000), np.full(6000, 3.0)])
    seen = np.zeros((300, 400), bool)
    seen[50:150, 100 + round(100 * covered) : 200] = True
    assert visibility.share_seen(pixels, seen) == pytest.approx(1 - covered, abs=0.05)
    assert visibility.box_of(seen) == (100 + round(100 * covered), 50, 200, 150)


def test_what_lies_outside_the_picture_is_not_seen() -> None:
    pixels = np.column_stack([np.linspace(-100, 100, 4000), np.full(4000, 10.5), np.ones(4000)])
    seen = np.ones((20, 400), bool)
    assert visibility.share_seen(pixels, seen) == pytest.approx(0.5, abs=0.02)
    pixels[0, 2] = -1
    assert visibility.share_seen(pixels, seen) == 0
    assert visibility.box_of(np.zeros((3, 4), bool)) is None


@pytest.mark.parametrize(
    ("box", "share", "expected"),
    [
        ((0, 0, 24, 10), 0.4, True), ((0, 0, 23, 23), 1.0, False), ((0, 0, 50, 9), 1.0, False),
        ((0, 0, 99, 99), 0.39, False), (None, 1.0, False),
    ],
)  # fmt: skip
def test_an_item_counts_when_it_is_large_and_visible_enough(
    box: tuple[int, int, int, int] | None, share: float, expected: bool
) -> None:
    assert visibility.counts(box, share) is expected


def test_the_nearer_thing_covers_the_other() -> None:
    far, near = block((2, 0.2, 2), 6000) + np.array([0, 6, 0]), block((1, 0.2, 1), 6000) + np.array([0, 3, 1])
    owner = visibility.nearest([CAMERA.project(far), CAMERA.project(near)], CAMERA.size_px)
    assert owner[150, 200] == 1
    assert (owner == 0).any()
    assert owner[5, 5] == -1


def test_polygons_are_apart_or_not() -> None:
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    turned = Placed(Product(model("a", size=(1, 1, 1))), (1.6, 0.5, 0), np.pi / 4).foot()
    assert not placing.apart(square, square + 0.9)
    assert placing.apart(square, square + np.array([1.1, 0]))
    assert not placing.apart(square, turned)
    assert placing.apart(square, turned + np.array([0.2, 0]))


def test_scenes_follow_from_their_number_and_keep_splits_apart(shop: list[Product]) -> None:
    points = points_of(shop)
    made = [scenes.make_scene(number, shop, points) for number in (0, 1, 2)]
    again = scenes.make_scene(1, list(shop), points)
    assert (again.placed, again.camera, again.seed) == (made[1].placed, made[1].camera, made[1].seed)
    for scene in made:
        assert {item.product.model.split for item in scene.placed} == {scenes.split_of(scene.number)}
        assert 1.2 <= scene.camera.position[2] <= 1.7
        assert len(scenes.shown_items(scene, points)) <= scenes.MOST_ITEMS
        standing = [item for item in scene.placed if item.at[2] < 0.01]
        for first, second in itertools.combinations(standing, 2):
            assert placing.apart(first.foot(), second.foot())
    assert sum(len(scenes.shown_items(scene, points)) >= scenes.FEWEST_ITEMS for scene in made) >= 2
    assert Counter(map(scenes.split_of, range(100))) == {"train": 40, "val": 20, "test": 40}


def test_things_rest_within_what_carries_them(shop: list[Product]) -> None:
    import random

    table = Placed(next(product for product in shop if product.model.vertical == "tables"), (0.3, 2.0, 0), 0.7)
    attempt = layout.Layout(0, "room", "train", shop, random.Random(0))
    attempt.placed = [table]
    cups = [product for product in shop if product.model.vertical == "tableware"]
    assert sum(attempt.on_top(cup) for cup in cups[:5]) >= 3
    for cup in attempt.placed[1:]:
        offset = (cup.foot() - np.array(table.at[:2])) @ placing.rotation(table.turn)
        assert (np.abs(offset) <= np.array(table.product.model.size_m[:2]) / 2).all()
        assert cup.at[2] == pytest.approx(0.702)


def test_a_photo_is_exposed_to_its_key_and_the_same_each_time() -> None:
    light = np.random.default_rng(0).uniform(0.2, 0.4, (30, 40, 3))
    dim, bright = (photo.develop(light * factor, 0.18, (1, 1, 1)) for factor in (0.1, 10))
    assert dim == pytest.approx(bright)
    assert np.exp(np.log(dim.mean(axis=2)).mean()) == pytest.approx(0.18, rel=0.05)
    assert photo.phone_photo(light, 3) == photo.phone_photo(light, 3) != photo.phone_photo(light, 4)
    with Image.open(io.BytesIO(photo.phone_photo(light, 3))) as image:
        assert (image.format, image.size) == ("JPEG", (40, 30))
    assert photo.to_srgb(np.array([[[0.0, 0.2140, 1.0]]])).getpixel((0, 0)) == (0, 127, 255)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shop: list[Product]) -> jobs.Workplace:
    """A build with two pictures of every product and three scenes."""
    place = jobs.Workplace(tmp_path / "work", tmp_path)
    place.prepare()
    monkeypatch.setattr(jobs.Workplace, "products", lambda _: shop)
    monkeypatch.setattr(jobs.Workplace, "models", lambda _: [product.model for product in shop])
    for product, view in itertools.product(shop, range(2)):
        (place.pictures / f"{product.key}.{view}.jpg").write_bytes(f"{product.key} {view}".encode())
    for number, count in ((0, 4), (1, 5), (2, 3), (3, 11)):
        item = {"box": [1, 2, 30, 40], "product": shop[0].key, "vertical": "seating", "share": 0.5}
        shown = {"kind": "room", "split": scenes.split_of(number), "items": [item] * count, "ignored": [[0, 0, 9, 9]]}
        (place.scenes / f"{number}.json").write_text(json.dumps(shown))
        (place.scenes / f"{number}.jpg").write_bytes(b"photo")
    return place


def test_what_is_packed(
    place: jobs.Workplace, tmp_path: Path, shop: list[Product], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "UNLABELLED_SHARE", 1.0)
    pack.pack(place, tmp_path / "out")
    products = pq.read_table(tmp_path / "out" / "products.parquet").to_pylist()
    assert len(products) == 2 * len(shop)
    assert [row["id"] for row in products] == sorted({row["id"] for row in products})
    assert {row["source"] for row in products} == {"product picture"}
    packed = pq.read_table(tmp_path / "out" / "scenes.parquet").to_pylist()
    assert [(row["id"], row["split"], len(row["items"])) for row in packed] == [
        ("scene-0000", "train", 4), ("scene-0001", "test", 5)
    ]  # fmt: skip
    assert packed[0]["items"][0] == {"box": [1, 2, 30, 40], "vertical": "seating", "product": None}
    assert packed[1]["items"][0]["product"] == shop[0].key
    assert packed[0]["ignored"] == [[0, 0, 9, 9]]
    assert "Scopia Visual Interfaces Systems" in (tmp_path / "out" / "HOME_CREDITS.md").read_text()
    monkeypatch.setattr(pack, "LARGEST_BYTES", 100)
    with pytest.raises(ValueError, match="Draw smaller pictures"):
        pack.pack(place, tmp_path / "out")


WORKER = """#!{python}
import pathlib, sys
place, current = pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[5])
for name in sys.stdin.read().split():
    current.write_text(name)
    if name == "2":
        sys.exit(9)
    (place / "scenes" / (name + ".json")).write_text("x")
"""


def test_a_job_that_ends_its_process_twice_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = jobs.Workplace(tmp_path, tmp_path)
    place.prepare()
    worker = tmp_path / "worker"
    worker.write_text(WORKER.format(python=sys.executable))
    worker.chmod(0o755)
    (place.scenes / "1.json").write_text("made before")
    jobs.run_share(place, "scenes", worker, ["0", "1", "2", "3"], 0)
    assert sorted(path.stem for path in place.scenes.glob("*.json")) == ["0", "1", "3"]
    assert (place.scenes / "1.json").read_text() == "made before"
    assert "2 is left out" in capsys.readouterr().err


def test_the_files_that_ship_keep_what_their_page_promises() -> None:
    folder = Path(__file__).parents[1] / "src" / "univert" / "data" / "sample"
    files = [folder / name for name in ("products.parquet", "scenes.parquet")]
    assert sum(path.stat().st_size for path in files) <= pack.LARGEST_BYTES
    products = pq.read_table(files[0], columns=["product", "vertical", "split"]).to_pylist()
    known = {row["product"]: (row["vertical"], row["split"]) for row in products}
    assert set(Counter(row["product"] for row in products).values()) == {3}
    assert min(Counter(vertical for vertical, _ in known.values()).values()) >= 25
    shown = pq.read_table(files[1], columns=["split", "items"]).to_pylist()
    assert len(shown) >= 600
    for scene in shown:
        assert scenes.FEWEST_ITEMS <= len(scene["items"]) <= scenes.MOST_ITEMS
        for item in scene["items"]:
            x0, y0, x1, y1 = item["box"]
            assert 0 <= x0 < x1 <= 400
            assert 0 <= y0 < y1 <= 400
            assert max(x1 - x0, y1 - y0) >= visibility.LEAST_SIDE_PX
            labels = item["vertical"], scene["split"]
            assert known[item["product"]] == labels if item["product"] else scene["split"] == "train"
