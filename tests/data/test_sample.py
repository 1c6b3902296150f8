import io
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from PIL import Image

from univert.core.errors import BadInputError
from univert.data.rows import SourceRow
from univert.data.sample import SAMPLE_HELD_OUT_BRAND, build_sample, sample_rows

NAMES = "smileys, people, animals-nature, food-drink, travel-places, activities, objects, symbols, flags"
VERTICALS = {*NAMES.split(", ")}


@pytest.fixture(scope="module")
def rows() -> list[SourceRow]:
    return list(sample_rows())


def test_images_have_their_labels_and_ids_that_tell_nothing(rows: list[SourceRow]) -> None:
    assert len(rows) > 7000
    assert {row.vertical for row in rows} == VERTICALS
    assert SAMPLE_HELD_OUT_BRAND in {row.brand for row in rows}
    assert {row.split for row in rows if row.product is None} == {"train"}
    ids = [row.id or "" for row in rows]
    assert ids == sorted(set(ids))
    assert all(len(name) == 16 and set(name) <= set("0123456789abcdef") for name in ids)
    pictures = Counter((row.brand, row.image) for row in rows)
    assert pictures.most_common(1)[0][1] == 1, "no artist draws two products with the same picture"
    for row in rows[::20]:
        with Image.open(io.BytesIO(row.image or b"")) as image:
            assert (image.format, image.width) in (("WEBP", 64), ("WEBP", 72))
            assert image.width == image.height


def test_every_product_lies_in_one_vertical_and_one_split_with_two_to_five_artists(rows: list[SourceRow]) -> None:
    members = defaultdict(list)
    for row in rows:
        if row.product is not None:
            members[row.product].append(row)
    for product, own in members.items():
        assert len({(row.vertical, row.style, row.split) for row in own}) == 1, product
        assert 2 <= len(own) == len({row.brand for row in own}) <= 5, product


def test_build_sample_makes_a_catalogue_and_refuses_to_replace_one(tmp_path: Path, rows: list[SourceRow]) -> None:
    catalogue = build_sample(tmp_path / "sample")
    assert len(catalogue) == len(rows)
    assert catalogue.verticals == sorted(VERTICALS)
    assert {row.id: row.product for row in rows} == dict(
        zip(catalogue.column("id"), catalogue.column("product"), strict=True)
    )
    with pytest.raises(BadInputError, match="overwrite"):
        build_sample(tmp_path / "sample")
