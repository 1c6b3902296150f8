from dataclasses import replace
from itertools import chain
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from tests.data.pictures import png, write
from univert.core.errors import BadInputError
from univert.data.build import build_catalogue
from univert.data.catalogue import SCHEMA, Catalogue, is_catalogue, uri_to_path
from univert.data.readers import open_source
from univert.data.rows import CatalogueProblemsError, Item, SourceRow

IMAGES = {f"i{n:03d}": png(n) for n in range(60)}


def source_rows() -> list[SourceRow]:
    rows = []
    for n, (name, image) in enumerate(IMAGES.items()):
        vertical = ("bags", "shoes", "hats")[n % 3]
        rows.append(
            SourceRow(
                origin=name,
                id=name,
                image=image,
                vertical=vertical,
                product=None if n % 10 == 9 else f"{vertical}-{n // 12}",
                brand=(None, "Acme", "Zenith")[n % 4 % 3],
                split=None if n % 10 == 9 else ("train", "val", "test")[n // 12 % 3],
                box_xyxy_px=(0, 1, 3, 4) if n % 5 == 0 else None,
            )
        )
    return rows


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    out = tmp_path_factory.mktemp("catalogue") / "cat"
    rows = source_rows()
    build_catalogue(rows[::-1], out, background_rgb=(1, 2, 3))
    return Catalogue.open(out)


def test_columns_hold_what_was_given(catalogue):
    for name in ("vertical", "product", "brand", "style", "source"):
        assert catalogue.column(name).tolist() == [getattr(row, name) for row in source_rows()]
        assert catalogue.column(name).dtype == object
    assert catalogue.column("split").tolist() == [row.split or "train" for row in source_rows()]
    assert catalogue.boxes(range(60)) == [row.box_xyxy_px for row in source_rows()]
    assert catalogue.boxes([]) == []


def test_selecting_is_filtering(catalogue):
    rows = source_rows()

    def expect(selection: Catalogue, keep: list[bool]) -> None:
        assert selection.column("id").tolist() == [row.id for row, kept in zip(rows, keep, strict=True) if kept]

    expect(catalogue.select(vertical="shoes"), [r.vertical == "shoes" for r in rows])
    expect(catalogue.select(vertical=["shoes", "bags"]), [r.vertical != "hats" for r in rows])
    expect(catalogue.select(split=["val", "test"]), [r.split in ("val", "test") for r in rows])
    expect(catalogue.select(labelled=True), [r.product is not None for r in rows])
    expect(catalogue.select(labelled=False), [r.product is None for r in rows])
    expect(catalogue.select(brand="Acme"), [r.brand == "Acme" for r in rows])
    expect(catalogue.select(not_brand=["Acme"]), [r.brand != "Acme" for r in rows])
    expect(
        catalogue.select(vertical="hats").select(split="train", labelled=True),
        [r.vertical == "hats" and r.split == "train" and r.product is not None for r in rows],
    )
    expect(catalogue.select(vertical=[]), [False] * 60)
    empty = catalogue.select(vertical=[])
    assert len(empty) == 0
    assert empty.verticals == []
    assert empty.image_bytes([]) == []
    assert empty.product_labels().shape == (0,)


def test_unknown_names_are_errors_with_the_nearest_one(catalogue):
    with pytest.raises(BadInputError, match=r"vertical: no 'shoe' in .*did you mean 'shoes'"):
        catalogue.select(vertical="shoe")
    with pytest.raises(BadInputError, match="split: no 'validation'"):
        catalogue.select(split="validation")
    with pytest.raises(BadInputError, match="not_brand: no 'acme'"):
        catalogue.select(not_brand="acme")
    with pytest.raises(BadInputError, match="column: unknown name 'products'; did you mean 'product'"):
        catalogue.column("products")


def test_product_labels(catalogue):
    for selection in (catalogue, catalogue.select(vertical="hats"), catalogue.select(labelled=True)):
        products = selection.column("product")
        names = sorted({name for name in products if name is not None})
        labels = selection.product_labels()
        assert labels.dtype == np.int64
        assert labels.tolist() == [-1 if name is None else names.index(name) for name in products]


def test_images_come_in_the_order_asked_for(catalogue):
    shoes = catalogue.select(vertical="shoes")
    positions = np.random.default_rng(0).integers(0, len(shoes), 50)
    expected = [IMAGES[name] for name in shoes.column("id")[positions]]
    assert shoes.image_bytes(positions) == expected
    assert shoes.image_bytes(positions.tolist()) == expected


def test_fingerprints_tell_selections_apart(catalogue):
    some = [
        catalogue,
        catalogue.select(vertical="hats"),
        catalogue.select(vertical="bags"),
        catalogue.select(labelled=True),
    ]
    assert len({selection.fingerprint for selection in some}) == 4
    assert catalogue.select(vertical=["hats", "bags", "shoes"]).fingerprint == catalogue.fingerprint
    one_way = catalogue.select(vertical="hats").select(labelled=True)
    other_way = catalogue.select(labelled=True).select(vertical="hats")
    assert one_way.fingerprint == other_way.fingerprint


def test_what_is_not_a_catalogue(tmp_path, catalogue):
    assert is_catalogue(catalogue.path)
    with pytest.raises(BadInputError, match="does not exist; make one with"):
        Catalogue.open(tmp_path / "none")
    with pytest.raises(BadInputError, match="is not a catalogue"):
        Catalogue.open(write(tmp_path / "file", b"x"))
    lance.write_dataset(pa.table({"a": [1]}), str(tmp_path / "other"))
    with pytest.raises(BadInputError, match="Lance dataset but not a catalogue"):
        Catalogue.open(tmp_path / "other")
    newer = pa.table({name: pa.array([], SCHEMA.field(name).type) for name in SCHEMA.names})
    metadata = {"univert.catalogue_format": "99", "univert.fingerprint": "x"}
    lance.write_dataset(newer.replace_schema_metadata(metadata), str(tmp_path / "newer"))
    with pytest.raises(BadInputError, match=r"format 99.*upgrade"):
        Catalogue.open(tmp_path / "newer")
    assert is_catalogue(tmp_path / "newer"), "it may be built again in its place"
    (tmp_path / "broken/_versions").mkdir(parents=True)
    with pytest.raises(BadInputError, match="broken"):
        Catalogue.open(tmp_path / "broken")


def test_linked_images(tmp_path):
    path = write(tmp_path / "pictures" / "a b#%é.png", png(1))
    rows = [SourceRow(origin="1", id="linked", path=path, vertical="v")]
    build_catalogue(rows, tmp_path / "cat", link=True)
    catalogue = Catalogue.open(tmp_path / "cat")
    assert catalogue.column("uri").tolist() == [path.as_uri()]
    assert uri_to_path(path.as_uri()) == path
    assert catalogue.image_bytes([0, 0]) == [png(1), png(1)]
    path.unlink()
    with pytest.raises(BadInputError, match=r"linked image cannot be read .*build the catalogue again"):
        catalogue.image_bytes([0])
    with pytest.raises(BadInputError, match="local file"):
        uri_to_path("https://shop.example/a.png")


SCENE = SourceRow(
    origin="room",
    id="i000-room",
    image=png(70),
    split="train",
    source="photo",
    items=(
        Item(box_xyxy_px=(0, 0, 2, 3), vertical="bags", product="bags-0"),
        Item(box_xyxy_px=(1, 1, 4, 4), vertical="hats"),
    ),
    ignored=((0, 0, 1, 1),),
)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """Images of single products, and a scene."""
    out = tmp_path_factory.mktemp("mixed") / "cat"
    build_catalogue([SCENE, *source_rows()], out)
    return Catalogue.open(out)


def test_items_of_scenes_are_images_whose_bytes_are_stored_once(mixed: Catalogue) -> None:
    assert len(mixed) == 62
    assert mixed.column("id").tolist() == sorted([*IMAGES, "i000-room#1", "i000-room#2"])
    here = np.flatnonzero(mixed.in_scene)
    names = ("id", "vertical", "product", "brand", "split", "source")
    assert {name: mixed.column(name)[here].tolist() for name in names} == {
        "id": ["i000-room#1", "i000-room#2"],
        "vertical": ["bags", "hats"],
        "product": ["bags-0", None],
        "brand": ["Zenith", None],
        "split": ["train", "train"],
        "source": ["photo", "photo"],
    }
    assert mixed.boxes(here) == [item.box_xyxy_px for item in SCENE.items or ()]
    assert mixed.image_bytes([*here, 0]) == [SCENE.image, SCENE.image, IMAGES["i000"]]
    assert len(set(mixed.column("digest")[here])) == 2
    assert lance.dataset(str(mixed.path)).count_rows() == 61
    labels = mixed.product_labels()
    assert labels[here[0]] == labels[0] >= 0, "one product in a scene and in its own picture"
    assert len(mixed.select(vertical="hats", labelled=False)) == 3
    assert len(mixed.select(in_scene=True)) == len(mixed.select(source="photo")) == 2
    scenes = Catalogue.open(mixed.path, scenes=True)
    assert scenes.column("id").tolist() == ["i000-room"]
    assert (scenes.items(), scenes.ignored()) == ([SCENE.items], [SCENE.ignored])


def test_scenes_and_product_pictures_share_splits_and_verticals(tmp_path: Path) -> None:
    with pytest.raises(CatalogueProblemsError) as caught:
        build_catalogue([*source_rows(), replace(SCENE, split="test")], tmp_path / "cat")
    assert caught.value.counts == {"product in two splits": 1}


def test_a_catalogue_is_a_source(mixed: Catalogue, catalogue: Catalogue, tmp_path: Path) -> None:
    both = chain(open_source(catalogue.path), open_source(mixed.path))
    build_catalogue(both, tmp_path / "cat")
    again = Catalogue.open(tmp_path / "cat")
    assert again.fingerprint == mixed.fingerprint, "rows that repeat others are taken once"
