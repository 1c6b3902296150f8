from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.serving.conftest import PRODUCTS, picture
from univert.core.errors import BadInputError
from univert.core.records import SourceRow
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.models.embedder import Embedder
from univert.search.exact import exact_neighbours
from univert.search.lance_store import LanceIndex
from univert.serving import indexing
from univert.serving.indexing import index_catalogue


def test_holds_the_catalogue_and_its_vectors(
    model: Embedder, catalogue: Catalogue, index: LanceIndex
) -> None:
    ids = catalogue.column("id").tolist()
    vectors = model.embed_catalogue(catalogue)
    positions, distances = exact_neighbours(vectors, vectors, len(ids), ids=ids)
    for hits, near, far in zip(
        index.search_many(vectors, len(ids), model_fingerprint=model.fingerprint),
        positions,
        distances,
        strict=True,
    ):
        np.testing.assert_allclose([hit.distance for hit in hits], far, atol=1e-5)
        assert hits[0].id == ids[near[0]]
        assert sorted(hit.id for hit in hits) == sorted(ids)
    rows = {hit.id: hit for hit in hits}
    for name in ("vertical", "product", "brand", "style", "source", "split"):
        assert [getattr(rows[key], name) for key in ids] == catalogue.column(name).tolist()
    pictures = index.pictures(ids)
    assert [entry.image for entry in pictures] == catalogue.image_bytes(range(len(ids)))
    assert [entry.box_xyxy_px for entry in pictures] == catalogue.boxes(range(len(ids)))


def test_parts_make_no_difference(
    model: Embedder, catalogue: Catalogue, index: LanceIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "PART_ROWS", 7)
    monkeypatch.setattr(indexing, "_IMAGES_AT_ONCE", 2)
    monkeypatch.setattr(indexing, "_BYTES_AT_ONCE", 300)
    report = index_catalogue(model, catalogue, tmp_path / "index", batch_size=3)
    assert report.images == 2 * PRODUCTS
    again = LanceIndex.open(tmp_path / "index")
    vectors = model.embed_catalogue(catalogue)[:5]
    options = {"k": 50, "model_fingerprint": model.fingerprint}
    for one, other in zip(
        again.search_many(vectors, **options), index.search_many(vectors, **options), strict=True
    ):
        assert {hit.id for hit in one} == {hit.id for hit in other}
        np.testing.assert_allclose([h.distance for h in one], [h.distance for h in other], atol=1e-5)
    ids = catalogue.column("id").tolist()
    assert again.pictures(ids) == index.pictures(ids)


def test_report(model: Embedder, catalogue: Catalogue, tmp_path: Path) -> None:
    selection = catalogue.select(vertical="shoes")
    report = index_catalogue(model, selection, tmp_path / "index")
    assert (report.images, report.size, report.approximate) == (PRODUCTS, 16, False)
    assert report.model_fingerprint == model.fingerprint
    assert json.loads(json.dumps(report.to_dict()))["path"] == str(tmp_path / "index")
    assert LanceIndex.open(tmp_path / "index").verticals == ["shoes"]


def test_linked_images_stay_where_they_are(model: Embedder, tmp_path: Path) -> None:
    photo = tmp_path / "a photo #1 50%.png"
    photo.write_bytes(picture(0, 0))
    build_catalogue(
        [SourceRow(origin="t", id="a", vertical="v", path=photo)], tmp_path / "catalogue", link=True
    )
    catalogue = Catalogue.open(tmp_path / "catalogue")
    index_catalogue(model, catalogue, tmp_path / "index")
    (found,) = LanceIndex.open(tmp_path / "index").pictures(["a"])
    assert found.image is None
    assert found.uri == catalogue.column("uri")[0]


def test_overwriting_needs_the_flag(model: Embedder, catalogue: Catalogue, tmp_path: Path) -> None:
    shoes, bags = catalogue.select(vertical="shoes"), catalogue.select(vertical="bags")
    index_catalogue(model, shoes, tmp_path / "index")
    with pytest.raises(BadInputError, match="pass --overwrite"):
        index_catalogue(model, bags, tmp_path / "index")
    index_catalogue(model, bags, tmp_path / "index", overwrite=True)
    assert LanceIndex.open(tmp_path / "index").verticals == ["bags"]
    with pytest.raises(BadInputError, match="not an index"):
        index_catalogue(model, bags, catalogue.path, overwrite=True)


def test_an_empty_selection_is_refused(model: Embedder, catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="nothing to index"):
        index_catalogue(model, catalogue.select(split="train"), tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_is_gone_leaves_nothing(model: Embedder, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(picture(0, 0))
    build_catalogue(
        [SourceRow(origin="t", id="a", vertical="v", path=photo)], tmp_path / "catalogue", link=True
    )
    photo.unlink()
    with pytest.raises(BadInputError, match=r"photo\.png"):
        index_catalogue(model, Catalogue.open(tmp_path / "catalogue"), tmp_path / "index")
    assert [entry.name for entry in tmp_path.iterdir()] == ["catalogue"]
