from collections import Counter
from pathlib import Path

import pytest

from univert.core.errors import BadInputError
from univert.data.catalogue import Catalogue
from univert.data.sample import PRODUCT_PICTURES, build_sample


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return build_sample(tmp_path_factory.mktemp("sample") / "home.lance")


def test_product_pictures_and_items_of_scenes_are_one_catalogue(sample: Catalogue) -> None:
    pictures, items = sample.select(in_scene=False), sample.select(in_scene=True)
    assert (len(pictures), len(items)) == (2829, 5148)
    assert len(Catalogue.open(sample.path, scenes=True)) == 690
    assert sample.select(source=PRODUCT_PICTURES).fingerprint == pictures.fingerprint
    assert set(pictures.select(vertical=sample.verticals).column("brand")) >= {"scopia", "katorlegaz"}
    assert Counter(pictures.column("split")) == {"train": 1422, "val": 585, "test": 822}


def test_every_known_item_has_product_pictures_in_its_split_and_vertical(sample: Catalogue) -> None:
    names = ("product", "vertical", "split", "style")
    pictures, items = (
        set(zip(*(part.column(name) for name in names), strict=True))
        for part in (sample.select(in_scene=False), sample.select(in_scene=True, labelled=True))
    )
    assert items <= pictures
    assert len({product for product, *_ in pictures}) == len(pictures) == 943
    assert set(sample.select(labelled=False).column("split")) == {"train"}


def test_a_sample_that_is_there_is_not_replaced(sample: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="overwrite"):
        build_sample(sample.path)
