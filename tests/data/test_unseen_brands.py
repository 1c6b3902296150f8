from dataclasses import replace
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import pytest

from tests.data.pictures import png
from univert.core.errors import BadInputError
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.readers import open_source
from univert.data.rows import Item, SourceProblem, SourceRow
from univert.data.unseen_brands import keep_brands_out_of_train, of_unseen_brands

PICTURE = png()


def row(name: str, **changes: object) -> SourceRow:
    plain = SourceRow(origin=name, id=name, image=PICTURE + name.encode(), vertical="hats")
    return replace(plain, **changes)  # type: ignore[arg-type]


def shop(brands: int = 6, products: int = 5) -> list[SourceRow]:
    """Each brand has products of its own, with two images each."""
    names = [(f"brand {b}", f"hat {b}-{p}", copy) for b in range(brands) for p in range(products) for copy in range(2)]
    return [row(f"{product}-{copy}", product=product, brand=brand) for brand, product, copy in names]


def drawings(artists: int = 6, things: int = 30) -> list[SourceRow]:
    """All artists draw the same things."""
    names = [(f"artist {a}", f"thing {t}") for a in range(artists) for t in range(things)]
    return [row(f"{thing} by {artist}", product=thing, brand=artist) for artist, thing in names]


def split(rows: list[SourceRow], share: float = 0.4) -> list[SourceRow]:
    return [one for one in keep_brands_out_of_train(lambda: iter(rows), share) if isinstance(one, SourceRow)]


def splits_by(rows: list[SourceRow], name: str) -> dict[str, set[str | None]]:
    found: dict[str, set[str | None]] = {}
    for one in rows:
        found.setdefault(getattr(one, name), set()).add(one.split)
    return found


def test_products_follow_a_brand_that_is_all_theirs() -> None:
    found = splits_by(split(shop()), "brand")
    kept_out = {brand: splits for brand, splits in found.items() if splits != {None}}
    assert sorted(map(sorted, kept_out.values())) == [["test"], ["val"]]
    assert splits_by(split(shop()[::-1]), "brand") == found, "the order of the rows says nothing"


def test_where_brands_share_products_images_elsewhere_are_in_no_split(tmp_path: Path) -> None:
    build_catalogue(split(drawings(), 0.5), tmp_path / "cat")
    catalogue = Catalogue.open(tmp_path / "cat")
    build_catalogue(drawings(), tmp_path / "plain")
    before = dict(zip(*(Catalogue.open(tmp_path / "plain").column(name) for name in ("product", "split")), strict=True))
    unseen = of_unseen_brands(catalogue, catalogue)
    brands, products, splits = (catalogue.column(name) for name in ("brand", "product", "split"))
    assert len(set(brands[unseen])) == 3
    assert all(place == before[product] for product, place in zip(products, splits, strict=True) if place is not None)
    assert not (unseen & (splits == "train")).any()
    assert all(never for never, place in zip(unseen, splits, strict=True) if place is None)
    for place in ("val", "test"):
        assert (unseen & (splits == place)).any()

    build_catalogue(open_source(tmp_path / "cat"), tmp_path / "again")
    assert Catalogue.open(tmp_path / "again").fingerprint == catalogue.fingerprint, "none stays none"


IMAGE = st.tuples(st.none() | st.integers(0, 9), st.none() | st.sampled_from("ABCDE"))


@hypothesis.given(st.lists(IMAGE, min_size=20, max_size=60), st.floats(0.05, 0.95))
def test_no_product_and_no_brand_kept_out_is_in_two_splits(
    images: list[tuple[int | None, str | None]], share: float
) -> None:
    """Whatever products and brands there are, and whichever of both are missing."""
    rows = [
        row(f"{n}", product=None if product is None else f"hat {product}", brand=brand, split=own_split(product))
        for n, (product, brand) in enumerate(images)
    ]
    try:
        found = split(rows, share)
    except BadInputError:
        return
    by_product, by_brand = splits_by(found, "product"), splits_by(found, "brand")
    assert all(len(splits - {"none"}) == 1 for product, splits in by_product.items() if product is not None)
    kept_out = {brand for brand, splits in splits_by(rows, "brand").items() if "train" not in by_brand[brand]}
    gone = {brand for brand in kept_out if "train" in splits_by(rows, "brand")[brand]}
    assert all(len(by_brand[brand] - {"none"}) == 1 for brand in gone)
    for old, new in zip(rows, found, strict=True):
        assert old == new or old.brand in kept_out or (old.brand is None and old.product is not None)


def own_split(product: int | None) -> str:
    return "train" if product is None else ("train", "train", "val", "test")[product % 4]


def test_images_in_no_split_make_no_brand_worth_keeping_out() -> None:
    unused = [replace(one, brand=f"no {one.brand}", product=f"no {one.product}", split="none") for one in shop(6, 1)]
    found = splits_by(split(shop(3) + unused), "brand")
    assert sorted(min(splits) for splits in found.values() if splits not in ({None}, {"none"})) == ["test", "val"]


def test_scenes_follow_their_items(tmp_path: Path) -> None:
    """A scene whose items are now in several splits is in none; one whose items all moved moves with them."""
    rows = [replace(one, split="train") for one in shop()]
    moved = {brand: splits for brand, splits in splits_by(split(rows), "brand").items() if splits != {"train"}}
    (gone, (place,)), *_ = moved.items()
    stays = next(one.brand for one in rows if one.brand not in moved)

    def scene(name: str, *brands: str | None) -> SourceRow:
        shown = [Item(box_xyxy_px=(0, 0, 4, 4), vertical="hats", product=f"hat {one[6:]}-0") for one in brands if one]
        return row(name, vertical="", items=tuple(shown), split="train")

    scenes = [scene("moved", gone), scene("mixed", gone, stays), scene("as it was", stays)]
    found = {one.id: one.split for one in split(rows + scenes)[len(rows) :]}
    assert found == {"moved": place, "mixed": "none", "as it was": "train"}
    build_catalogue(split(rows + scenes), tmp_path / "cat")
    catalogue = Catalogue.open(tmp_path / "cat")
    unseen = of_unseen_brands(catalogue, catalogue)
    assert unseen[catalogue.in_scene].sum() == 2
    assert set(catalogue.column("id")[unseen & catalogue.in_scene]) == {"moved#1", "mixed#1"}


def test_a_brand_without_train_images_is_unseen_whatever_made_it_so(tmp_path: Path) -> None:
    given = {"a": ("A", "train"), "b": ("B", "test"), "c": (None, "test"), "d": ("A", "val")}
    rows = [row(name, product=name, brand=brand, split=place) for name, (brand, place) in given.items()]
    build_catalogue(rows, tmp_path / "cat")
    catalogue = Catalogue.open(tmp_path / "cat")
    assert of_unseen_brands(catalogue, catalogue).tolist() == [False, True, False, False]
    assert of_unseen_brands(catalogue.select(split="test"), catalogue).tolist() == [True, False]
    without = catalogue.select(split=["val", "test"])
    assert not of_unseen_brands(without, without).any(), "nothing is known of what training had"


@pytest.mark.parametrize(
    ("rows", "share", "says"),
    [
        (shop(2), 0.2, r"too few brands have a product with two images \(2\): .* none is left for test; give"),
        ([row("a", product="a")], 0.2, r"two images \(0\): .* none is left for val"),
        (shop(), 0.0, "the share must lie between 0 and 1, got 0; try 0.2"),
        (shop(), 1.0, "the share must lie between 0 and 1, got 1;"),
    ],
)
def test_bad_input(rows: list[SourceRow], share: float, says: str) -> None:
    with pytest.raises(BadInputError, match=says):
        split(rows, share)


def test_what_is_wrong_with_a_source_is_still_said() -> None:
    problem = SourceProblem("bad line", "here", "two fields", "give three")
    wrong = row("odd", product="hat 0-0", brand="brand 0", split="trian")
    odd = row("odder", product="\udcff", brand="\udcff")
    found = list(keep_brands_out_of_train(lambda: iter([problem, wrong, odd, odd, *shop()]), 0.9))
    assert found[:2] == [problem, wrong]
