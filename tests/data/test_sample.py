import io
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from PIL import Image

import univert.data
from univert.core.errors import BadInputError
from univert.data.rows import SourceRow
from univert.data.sample import SAMPLE_BRANDS, SAMPLE_HELD_OUT_BRAND, build_sample, sample_rows

IMAGES_AT_LEAST = {
    "smileys": 700,
    "people": 1250,
    "animals-nature": 650,
    "food-drink": 530,
    "travel-places": 1000,
    "activities": 350,
    "objects": 1100,
    "symbols": 1000,
    "flags": 750,
}
"""Smallest number of images in a vertical; the largest is 1.1 times that."""

BRAND_IMAGES = {
    "noto": (1800, 1900),
    "twemoji": (1800, 1900),
    "fluent-3d": (1500, 1600),
    "noto-v1": (1100, 1250),
    "emojione-2": (1300, 1400),
}


@pytest.fixture(scope="module")
def rows() -> list[SourceRow]:
    return list(sample_rows())


def test_verticals_and_artists_hold_about_what_the_documentation_says(rows: list[SourceRow]) -> None:
    verticals = Counter(row.vertical for row in rows)
    assert verticals.keys() == IMAGES_AT_LEAST.keys()
    for vertical, least in IMAGES_AT_LEAST.items():
        assert least <= verticals[vertical] <= 1.1 * least, vertical
    brands = Counter(row.brand for row in rows)
    assert set(brands) == set(SAMPLE_BRANDS) == set(BRAND_IMAGES)
    assert SAMPLE_HELD_OUT_BRAND in SAMPLE_BRANDS
    for brand, (least, most) in BRAND_IMAGES.items():
        assert least <= brands[brand] <= most, brand


def test_ids_are_unique_and_neither_they_nor_the_order_tell_the_product(rows: list[SourceRow]) -> None:
    ids = [row.id for row in rows]
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids)
    assert all(len(id_) == 16 and set(id_) <= set("0123456789abcdef") for id_ in ids)


def test_every_product_lies_in_one_vertical_and_one_split_with_two_to_five_artists(rows: list[SourceRow]) -> None:
    members = defaultdict(list)
    for row in rows:
        if row.product is not None:
            members[row.product].append(row)
    for product, own in members.items():
        assert len({(row.vertical, row.style, row.split) for row in own}) == 1, product
        assert 2 <= len(own) == len({row.brand for row in own}) <= 5, product


def test_unlabelled_images_are_training_images_with_vertical_and_brand(rows: list[SourceRow]) -> None:
    unlabelled = [row for row in rows if row.product is None]
    assert {row.split for row in unlabelled} == {"train"}
    assert all(row.brand and row.style and row.source for row in unlabelled)
    assert {row.vertical for row in unlabelled} == set(IMAGES_AT_LEAST)


def test_shares_of_the_splits_within_each_vertical(rows: list[SourceRow]) -> None:
    # Images stand in for products here: the products of unlabelled images are unknown by design.
    for vertical in IMAGES_AT_LEAST:
        own = [row for row in rows if row.vertical == vertical]
        shares = Counter(row.split if row.product else "unlabelled" for row in own)
        assert shares["train"] / len(own) == pytest.approx(0.45, abs=0.08), vertical
        assert shares["unlabelled"] / len(own) == pytest.approx(0.20, abs=0.06), vertical
        assert shares["val"] / len(own) == pytest.approx(0.10, abs=0.04), vertical
        assert shares["test"] / len(own) == pytest.approx(0.25, abs=0.06), vertical


def test_no_artist_draws_two_products_with_the_same_picture(rows: list[SourceRow]) -> None:
    pictures = Counter((row.brand, row.image) for row in rows)
    assert pictures.most_common(1)[0][1] == 1


def test_images_are_small_squares_with_alpha_and_not_blank(rows: list[SourceRow]) -> None:
    # Every image is decoded in full where the catalogue is built, below; a quarter is enough here.
    some = rows[::4]
    opaque = 0
    for row in some:
        with Image.open(io.BytesIO(row.image or b"")) as image:
            assert (image.format, image.width) in (("WEBP", 64), ("WEBP", 72))
            assert image.width == image.height
            opaque += image.mode != "RGBA"
            alpha = image.convert("RGBA").getchannel("A")
        assert sum(alpha.histogram()[33:]) > 0.01 * alpha.width**2, row.id
    assert opaque < 0.01 * len(some)


def test_the_file_is_at_most_ten_megabytes() -> None:
    path = Path(univert.data.__file__).parent / "sample" / "sample.parquet"
    assert path.stat().st_size <= 10_000_000


def test_build_sample_makes_a_catalogue_and_refuses_to_replace_one(tmp_path: Path, rows: list[SourceRow]) -> None:
    catalogue = build_sample(tmp_path / "sample")
    assert len(catalogue) == len(rows)
    assert catalogue.verticals == sorted(IMAGES_AT_LEAST)
    assert {row.id: row.product for row in rows} == dict(
        zip(catalogue.column("id"), catalogue.column("product"), strict=True)
    )
    with pytest.raises(BadInputError, match="overwrite"):
        build_sample(tmp_path / "sample")
