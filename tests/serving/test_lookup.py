from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.small_shop import PRODUCTS, picture
from univert.core.errors import BadInputError
from univert.models.embedder import Embedder, EmbedderConfig
from univert.search.lance_store import LanceIndex
from univert.serving.lookup import search_image


def test_finds_an_indexed_image(model: Embedder, index: LanceIndex, tmp_path: Path) -> None:
    content = picture(4, 1)
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    hits = search_image(model, index, content, 5)
    assert len(hits) == 5
    assert hits[0].id == "p4-1"
    assert hits[0].distance == pytest.approx(0, abs=1e-4)
    expected = [hit.id for hit in hits]
    for image in (path, str(path), Image.open(io.BytesIO(content))):
        assert [hit.id for hit in search_image(model, index, image, 5)] == expected


def test_within_a_vertical_and_with_filters(model: Embedder, index: LanceIndex) -> None:
    shoes = search_image(model, index, picture(4, 1), 100, vertical="shoes")
    assert len(shoes) == PRODUCTS
    assert {hit.vertical for hit in shoes} == {"shoes"}
    branded = search_image(model, index, picture(4, 1), 100, vertical="shoes", where={"brand": "Maker & Sons"})
    assert [hit.id for hit in branded] == [hit.id for hit in shoes if hit.brand is not None]


def test_refusals(model: Embedder, index: LanceIndex, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="did you mean 'shoes'"):
        search_image(model, index, picture(0, 0), vertical="shoe")
    with pytest.raises(BadInputError, match="vertical once"):
        search_image(model, index, picture(0, 0), vertical="shoes", where={"vertical": "bags"})
    with pytest.raises(BadInputError, match=r"nowhere\.jpg"):
        search_image(model, index, tmp_path / "nowhere.jpg")
    with pytest.raises(BadInputError, match="not an image"):
        search_image(model, index, b"what is this")
    with pytest.raises(BadInputError, match="k must be at least 1"):
        search_image(model, index, picture(0, 0), 0)


def test_another_model_is_refused_before_it_works(index: LanceIndex) -> None:
    config = EmbedderConfig(base_network="timm/test_resnet", pretrained=False, hidden_sizes=(), size=16)
    other = Embedder(config)
    with pytest.raises(BadInputError) as refusal:
        search_image(other, index, b"never looked at")
    assert other.fingerprint in str(refusal.value)
    assert index.model_fingerprint in str(refusal.value)
