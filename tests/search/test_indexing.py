import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.oracles.neighbours import exact_neighbours
from tests.serving.bytes_model import BytesModel
from tests.small_shop import PRODUCTS, catalogue, index, model, picture, source_row
from univert.core.errors import BadInputError
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.rows import SourceRow
from univert.models.embedder import Embedder, EmbedderConfig
from univert.search import catalogue_changes
from univert.search.index import Index, IndexReader
from univert.search.indexing import IndexReport, add_vertical_to_index, index_catalogue
from univert.search.writer import IndexWriter

__all__ = ["catalogue", "index", "model"]  # fixtures


def test_holds_the_catalogue_and_its_vectors(model: Embedder, catalogue: Catalogue, index: Index) -> None:
    ids = catalogue.column("id").tolist()
    vectors = model.embed_catalogue(catalogue)
    positions, distances = exact_neighbours(vectors, vectors, len(ids), ids=ids)
    for hits, near, far in zip(
        index.search_many(vectors, len(ids), model_fingerprint=model.fingerprint), positions, distances, strict=True
    ):
        np.testing.assert_allclose([hit.distance for hit in hits], far, atol=2e-5)
        assert hits[0].id == ids[near[0]]
        assert sorted(hit.id for hit in hits) == sorted(ids)
    rows = {hit.id: hit for hit in hits}
    for name in ("vertical", "product", "brand", "style", "source", "split"):
        assert [getattr(rows[key], name) for key in ids] == catalogue.column(name).tolist()
    pictures = index.pictures(ids)
    assert [entry.image for entry in pictures] == catalogue.image_bytes(range(len(ids)))
    assert [entry.box_xyxy_px for entry in pictures] == catalogue.boxes(range(len(ids)))


def test_parts_make_no_difference(
    model: Embedder, catalogue: Catalogue, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_changes, "PART_ROWS", 7)
    monkeypatch.setattr(catalogue_changes, "_IMAGES_AT_ONCE", 2)
    report = index_catalogue(model, catalogue, tmp_path / "index", batch_size=3)
    assert report.images == 2 * PRODUCTS
    again = Index.open(tmp_path / "index")
    vectors = model.embed_catalogue(catalogue)[:5]
    options = {"k": 50, "model_fingerprint": model.fingerprint}
    for one, other in zip(again.search_many(vectors, **options), index.search_many(vectors, **options), strict=True):
        assert {hit.id for hit in one} == {hit.id for hit in other}
        np.testing.assert_allclose([h.distance for h in one], [h.distance for h in other], atol=1e-5)
    ids = catalogue.column("id").tolist()
    assert again.pictures(ids) == index.pictures(ids)


def test_an_empty_selection_is_refused(model: Embedder, catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="nothing to index"):
        index_catalogue(model, catalogue.select(split="train"), tmp_path / "index")
    assert list(tmp_path.iterdir()) == []


class Counting:
    """A model that remembers which images it embedded."""

    def __init__(self, model: Embedder) -> None:
        self._model = model
        self.size, self.fingerprint = model.size, model.fingerprint
        self.ids: list[str] = []

    def embed(self, items: Any, batch_size: int = 64, progress: bool = False) -> np.ndarray:
        return self._model.embed(items, batch_size, progress)

    def embed_catalogue(self, catalogue: Any, batch_size: int = 64, progress: bool = False) -> np.ndarray:
        self.ids += catalogue.column("id").tolist()
        return self._model.embed_catalogue(catalogue, batch_size, progress)


@pytest.fixture
def counting(model: Embedder) -> Counting:
    return Counting(model)


def catalogue_of(rows: list[SourceRow], path: Path, **options: Any) -> Catalogue:
    build_catalogue(rows, path, overwrite=True, **options)
    return Catalogue.open(path)


def counts(report: IndexReport) -> tuple[int, ...]:
    return report.added, report.embedded_again, report.relabelled, report.deleted, report.unchanged


def test_only_what_is_new_or_different_is_embedded(counting: Counting, tmp_path: Path) -> None:
    rows = [source_row(product, copy) for product in range(4) for copy in range(2)]
    index = tmp_path / "index"
    report = index_catalogue(counting, catalogue_of(rows, tmp_path / "cat"), index)
    assert counts(report) == (8, 0, 0, 0, 0)
    first = report.version

    counting.ids = []
    report = index_catalogue(counting, catalogue_of(rows, tmp_path / "cat"), index)
    assert (counts(report), counting.ids, report.version) == ((0, 0, 0, 0, 8), [], first)

    rows[0] = dataclasses.replace(rows[0], brand="another")  # a label
    rows[1] = dataclasses.replace(rows[1], image=picture(90, 0))  # the picture
    rows[2] = dataclasses.replace(rows[2], box_xyxy_px=(0, 0, 20, 20))  # the box
    del rows[7]  # gone
    rows.append(source_row(9, 0))  # new
    catalogue = catalogue_of(rows, tmp_path / "cat")
    report = index_catalogue(counting, catalogue, index)
    assert counts(report) == (1, 2, 1, 0, 4)
    assert sorted(counting.ids) == ["p0-1", "p1-0", "p9-0"]
    assert report.images == 9

    report = index_catalogue(counting, catalogue, index, delete_missing=True)
    assert (counts(report), report.images) == ((0, 0, 0, 1, 8), 8)
    fresh = tmp_path / "fresh"
    index_catalogue(counting, catalogue, fresh)
    one, other = Index.open(index), Index.open(fresh)
    ids = catalogue.column("id").tolist()
    assert [one.row(name) for name in ids] == [other.row(name) for name in ids]
    assert one.pictures(ids) == other.pictures(ids)
    np.testing.assert_allclose(one.vectors(ids), other.vectors(ids), atol=1e-5)


def test_a_selection_deletes_only_within_its_verticals(model: Embedder, tmp_path: Path) -> None:
    rows = [source_row(product, 0) for product in range(6)]
    index_catalogue(model, catalogue_of(rows, tmp_path / "cat"), tmp_path / "index")
    fewer = catalogue_of(rows[2:], tmp_path / "cat")  # a bag and a shoe less
    report = index_catalogue(
        model, fewer.select(vertical="shoes"), tmp_path / "index", delete_missing=True, verticals=["shoes"]
    )
    assert counts(report) == (0, 0, 0, 1, 2)
    found = Index.open(tmp_path / "index")
    assert found.distinct("vertical") == [("bags", 3), ("shoes", 2)]


def test_a_linked_file_stays_where_it_is_and_may_change(counting: Counting, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(picture(0, 0))
    rows = [SourceRow(origin="t", id="a", vertical="v", path=photo)]
    catalogue = catalogue_of(rows, tmp_path / "cat", link=True)
    index_catalogue(counting, catalogue, tmp_path / "index")
    assert counts(index_catalogue(counting, catalogue, tmp_path / "index")) == (0, 0, 0, 0, 1)
    photo.write_bytes(picture(1, 0))
    assert counts(index_catalogue(counting, catalogue, tmp_path / "index")) == (0, 1, 0, 0, 0)
    assert counting.ids == ["a", "a"]
    (found,) = Index.open(tmp_path / "index").pictures(["a"])
    assert (found.image, found.uri) == (None, catalogue.column("uri")[0])


def other_model() -> Embedder:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = EmbedderConfig(
            base_network="timm/test_resnet", pretrained=False, hidden_sizes=(), size=8, image_size_px=64
        )
        return Embedder(config).eval()


def test_another_model_needs_the_flag_and_readers_go_on(
    model: Embedder, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index"
    index_catalogue(model, catalogue, path)
    other = Counting(other_model())
    with pytest.raises(BadInputError, match=r"cannot be compared with those; use the first model, or pass --overwrite"):
        index_catalogue(other, catalogue, path)
    monkeypatch.setattr(catalogue_changes, "PART_ROWS", 5)
    query = model.embed_catalogue(catalogue.select(vertical="bags"))[0]
    with IndexReader.open(path, refresh_s=60) as reader:
        before = reader.current()
        stop_at = 10

        def stopping(part: Any, batch_size: int = 64, progress: bool = False) -> np.ndarray:
            if len(other.ids) >= stop_at:
                raise RuntimeError("killed")
            return Counting.embed_catalogue(other, part, batch_size, progress)

        with monkeypatch.context() as patch:
            patch.setattr(other, "embed_catalogue", stopping)
            with pytest.raises(RuntimeError, match="killed"):
                index_catalogue(other, catalogue, path, overwrite=True)
        assert Index.open(path).model_fingerprint == model.fingerprint
        # Begun again it goes on, with the flag as without.
        report = index_catalogue(other, catalogue.select(vertical="bags"), path, overwrite=True)
        assert len(other.ids) == len(set(other.ids))
        assert (report.size, report.images) == (8, PRODUCTS)
        assert len(before.search(query, 100, model_fingerprint=model.fingerprint)) == 2 * PRODUCTS
        reader.refresh()
        assert reader.current().model_fingerprint == other.fingerprint
        with pytest.raises(BadInputError, match="cannot be compared"):
            reader.current().search(query, model_fingerprint=model.fingerprint)
    assert Index.open(path).verticals == ["bags"]
    # From then on the flag means everything anew once more.
    other.ids = []
    index_catalogue(other, catalogue.select(vertical="bags"), path, overwrite=True)
    assert len(other.ids) == PRODUCTS


def left_half_way(model: Embedder, catalogue: Catalogue, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of shoes, and an interrupted call that makes it anew, of everything."""
    index_catalogue(model, catalogue.select(vertical="shoes"), path)
    stopping = Counting(model)

    def embed(part: Any, batch_size: int = 64, progress: bool = False) -> np.ndarray:
        if stopping.ids:
            raise RuntimeError("killed")
        return Counting.embed_catalogue(stopping, part, batch_size, progress)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(catalogue_changes, "PART_ROWS", PRODUCTS + 2)
        patch.setattr(stopping, "embed_catalogue", embed)
        index_catalogue(stopping, catalogue, path, overwrite=True)
    with IndexWriter.open(path) as writer:
        assert writer.is_rebuilding
        assert set(writer.columns(["vertical"])["vertical"].to_pylist()) == {"bags", "shoes"}


def test_what_was_left_half_way_is_neither_published_nor_taken_for_an_index(
    model: Embedder, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index"
    left_half_way(model, catalogue, path, monkeypatch)
    shoes = catalogue.select(vertical="shoes")
    with pytest.raises(BadInputError, match="with --overwrite again"):
        index_catalogue(model, shoes, path, verticals=["shoes"])
    options = {"compatible_models": [model.fingerprint, "grown"]}
    with pytest.raises(BadInputError, match="with --overwrite again"):
        add_vertical_to_index(model, shoes, path, "shoes", **options)  # type: ignore[arg-type]
    assert len(Index.open(path)) == PRODUCTS
    # Made whole but not published, it is an index like any other, whose verticals can be renewed one by one.
    index_catalogue(model, catalogue, path, overwrite=True, publish=False)
    index_catalogue(model, shoes, path, delete_missing=True, verticals=["shoes"], publish=False)
    with IndexWriter.open(path) as writer:
        writer.publish()
    assert len(Index.open(path)) == 2 * PRODUCTS


def test_what_is_no_index_is_not_overwritten(model: Embedder, catalogue: Catalogue, tmp_path: Path) -> None:
    for overwrite in (False, True):
        with pytest.raises(BadInputError, match="is not an index, so it is not overwritten"):
            index_catalogue(model, catalogue, catalogue.path, overwrite=overwrite)
    with (
        IndexWriter.create(tmp_path / "index", size=16, model_fingerprint=model.fingerprint),
        pytest.raises(BadInputError, match="is being written by"),
    ):
        index_catalogue(model, catalogue, tmp_path / "index")


@pytest.fixture
def bags(catalogue: Catalogue, tmp_path: Path) -> Path:
    """An index of the bags alone, whose model has grown since."""
    index_catalogue(BytesModel(), catalogue.select(vertical="bags"), tmp_path / "index")
    return tmp_path / "index"


def grow(path: Path, catalogue: Catalogue, model: str = "grown", vertical: str = "shoes") -> int:
    embedder = BytesModel()
    embedder.fingerprint = model
    return add_vertical_to_index(embedder, catalogue, path, vertical, compatible_models=["bytes", model])


def test_a_vertical_and_its_models_come_together_and_once(bags: Path, catalogue: Catalogue) -> None:
    shoes = catalogue.select(vertical="shoes")
    with pytest.raises(BadInputError, match="cannot be compared"):
        Index.open(bags).check_model("grown")
    assert grow(bags, shoes) == PRODUCTS
    index = Index.open(bags)
    assert (len(index), index.compatible_models, index.verticals) == (2 * PRODUCTS, ["grown"], ["bags", "shoes"])
    name = shoes.column("id")[0]
    for fingerprint in ("bytes", "grown"):
        assert index.search(index.vectors([name])[0], 1, model_fingerprint=fingerprint)[0].id == name
    with pytest.raises(BadInputError, match="with model another, and their vectors cannot be compared"):
        index.check_model("another")
    assert grow(bags, shoes) == 0, "all was done before"
    assert Index.open(bags).version == index.version
    assert grow(bags, shoes, model="grown again") == PRODUCTS
    assert Index.open(bags).compatible_models == ["grown", "grown again"]


def test_a_vertical_that_is_interrupted_is_not_seen(
    bags: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    shoes = catalogue.select(vertical="shoes")
    monkeypatch.setattr(catalogue_changes, "PART_ROWS", 5)
    for where in ("columns", "record_compatible"):
        with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
            patch.setattr(IndexWriter, where, lambda *given, **options: 1 / 0)
            grow(bags, shoes)
        assert (len(Index.open(bags)), Index.open(bags).compatible_models) == (PRODUCTS, [])
    assert grow(bags, shoes) == PRODUCTS
    assert len(Index.open(bags)) == 2 * PRODUCTS


def test_a_vertical_that_would_make_a_muddle_is_refused(bags: Path, catalogue: Catalogue) -> None:
    shoes = catalogue.select(vertical="shoes")
    with pytest.raises(BadInputError, match=rf"{PRODUCTS} of these images in another vertical, such as 'p0-0' in 'bag"):
        grow(bags, catalogue.select(vertical="bags"))
    grow(bags, shoes)
    named = shoes.select(labelled=True)
    with pytest.raises(BadInputError, match=r"2 images of shoes that the catalogue lacks, such as 'p1-0'"):
        grow(bags, named, model="grown again")
    with pytest.raises(BadInputError, match="no such index"):
        grow(bags.parent / "nowhere", shoes)
    assert Index.open(bags).compatible_models == ["grown"]
