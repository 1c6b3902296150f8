import lance
import numpy as np
import pyarrow as pa
import pytest

from tests.data.pictures import png, write
from univert.core.errors import BadInputError
from univert.data.build import build_catalogue
from univert.data.catalogue import SCHEMA, Catalogue, is_catalogue, uri_to_path
from univert.data.rows import SourceRow

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
