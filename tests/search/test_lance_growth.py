from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from tests.search.conftest import MODEL, build, unit
from univert.core.errors import BadInputError
from univert.search.exact import exact_neighbours
from univert.search.lance_growth import Parts, add_vertical
from univert.search.lance_store import LanceIndex
from univert.search.reader import IndexReader
from univert.search.writer import IndexWriter

RNG = np.random.default_rng(0)
OLD, NEW = unit(RNG.normal(size=(40, 8))), unit(RNG.normal(size=(12, 8)))
IDS = [f"new-{number}" for number in range(len(NEW))]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    columns = {"id": [f"old-{n}" for n in range(40)], "vertical": ["bags", "tops"] * 20}
    build(tmp_path / "index", OLD, columns)
    return tmp_path / "index"


def parts(vectors: np.ndarray = NEW, ids: Sequence[str] = IDS, vertical: str = "hats", at_once: int = 5) -> Parts:
    for start in range(0, len(ids), at_once):
        names = list(ids[start : start + at_once])
        table = pa.table({"id": names, "vertical": [vertical] * len(names), "product": names})
        yield vectors[start : start + at_once], table


def grow(path: Path, vectors: np.ndarray = NEW, ids: Sequence[str] = IDS, model: str = "model-b") -> int:
    return add_vertical(path, "hats", ids, lambda: parts(vectors, ids), compatible_models=[MODEL, model])


def test_both_models_search_old_and_new(path: Path) -> None:
    before = LanceIndex.open(path)
    assert before.compatible_models == []
    with pytest.raises(BadInputError, match="cannot be compared"):
        before.check_model("model-b")
    assert grow(path) == len(NEW)
    index = LanceIndex.open(path)
    assert (index.model_fingerprint, index.compatible_models) == (MODEL, ["model-b"])
    assert index.verticals == ["bags", "hats", "tops"]
    together = np.concatenate([OLD, NEW])
    names = [*(f"old-{n}" for n in range(40)), *IDS]
    positions, distances = exact_neighbours(together, together, 52, ids=names)
    for model in (MODEL, "model-b"):
        answers = index.search_many(together, 52, model_fingerprint=model)
        for hits, near, far in zip(answers, positions, distances, strict=True):
            assert [hit.id for hit in hits][:5] == [names[n] for n in near][:5]
            np.testing.assert_allclose([hit.distance for hit in hits], far, atol=1e-5)
    with pytest.raises(BadInputError, match="model-c"):
        index.search(OLD[0], model_fingerprint="model-c")


def test_done_twice_it_adds_nothing_and_asks_for_nothing(path: Path) -> None:
    grow(path)

    def never() -> Parts:
        raise AssertionError("asked for vectors that are there")

    assert add_vertical(path, "hats", IDS, never, compatible_models=[MODEL, "model-b"]) == 0
    index = LanceIndex.open(path)
    assert (len(index), index.compatible_models) == (52, ["model-b"])


def test_further_models_are_added_in_order_and_renew_the_vectors(path: Path) -> None:
    grow(path)
    assert grow(path, vectors=NEW[::-1], model="model-c") == len(NEW)
    index = LanceIndex.open(path)
    assert (len(index), index.compatible_models) == (52, ["model-b", "model-c"])
    assert index.search(NEW[-1], 1, model_fingerprint="model-b")[0].id == "new-0"


def test_images_that_came_later_are_added(path: Path) -> None:
    grow(path, vectors=NEW[:7], ids=IDS[:7])
    assert len(LanceIndex.open(path)) == 47
    assert grow(path) == len(NEW)
    assert len(LanceIndex.open(path)) == 52


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_a_kill_on_the_way_leaves_the_index_as_it_was(path: Path, stop_after: int) -> None:
    def interrupted() -> Parts:
        for number, part in enumerate(parts()):
            if number == stop_after:
                raise RuntimeError("killed")
            yield part

    with pytest.raises(RuntimeError, match="killed"):
        add_vertical(path, "hats", IDS, interrupted, compatible_models=["model-b"])
    index = LanceIndex.open(path)
    assert (len(index), index.compatible_models, index.verticals) == (40, [], ["bags", "tops"])
    assert grow(path) == len(NEW)
    assert len(LanceIndex.open(path)) == 52


def test_a_kill_between_rows_and_record_shows_nothing_and_is_made_good(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(IndexWriter, "record_compatible", lambda self, models: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            grow(path)
    before = LanceIndex.open(path)
    assert (len(before), before.compatible_models) == (40, [])
    assert grow(path) == len(NEW)
    index = LanceIndex.open(path)
    assert (len(index), index.compatible_models) == (52, ["model-b"])


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        (["old-3", "x"], NEW[:2], r"1 of these images in another vertical, such as 'old-3' in 'tops'"),
        (["x", "x"], NEW[:2], "an id occurs more than once"),
        (["x", "y"], NEW[:2] * 2, "unit vectors"),
        (["x", "y"], NEW[:2, :4], r"shape \(N, 8\)"),
    ],
)
def test_what_is_refused_changes_nothing(path: Path, ids: list[str], vectors: np.ndarray, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        grow(path, vectors=vectors, ids=ids)
    index = LanceIndex.open(path)
    assert (len(index), index.compatible_models) == (40, [])


def test_images_that_the_catalogue_lacks_are_refused(path: Path) -> None:
    grow(path)
    with pytest.raises(BadInputError, match=r"5 images of hats that the catalogue lacks, such as 'new-10'"):
        grow(path, vectors=NEW[[*range(5, 10), 0, 1]], ids=[*IDS[5:10], *IDS[:2]], model="model-c")
    with pytest.raises(BadInputError, match="no such index"):
        grow(path.parent / "nowhere")


def test_an_index_that_was_left_half_way_is_not_grown(path: Path) -> None:
    with IndexWriter.open(path) as writer:
        writer.start_over(size=8, model_fingerprint=MODEL)
        writer.upsert(OLD[:1], pa.table({"id": ["old-0"], "vertical": ["bags"]}))
    with pytest.raises(BadInputError, match="is being made anew, and that was interrupted: it holds 1 images"):
        grow(path)
    assert len(LanceIndex.open(path)) == 40
    with IndexWriter.open(path) as writer:
        assert len(writer) == 1


def test_a_large_index_gets_and_keeps_its_graph(path: Path) -> None:
    add_vertical(path, "hats", IDS, parts, compatible_models=["model-b"], exact_rows=50)
    index = LanceIndex.open(path, exact_rows=10)
    assert index.approximate
    more = unit(RNG.normal(size=(300, 8)))
    names = [f"more-{n}" for n in range(300)]
    add_vertical(
        path, "caps", names, lambda: parts(more, names, "caps", 100), compatible_models=["model-c"], exact_rows=50
    )
    index = LanceIndex.open(path, exact_rows=10)
    stats = lancedb.connect(str(path)).open_table("images")
    assert index.approximate
    assert all(stats.index_stats(each.name).num_unindexed_rows == 0 for each in stats.list_indices())
    found = [index.search(vector, 1, model_fingerprint="model-c")[0].id for vector in more]
    assert np.mean([one == other for one, other in zip(found, names, strict=True)]) > 0.98


def test_open_in_another_process_a_search_goes_on(path: Path) -> None:
    open_before = LanceIndex.open(path)
    grow(path)
    hits = open_before.search(OLD[3], 1, model_fingerprint=MODEL)
    assert hits[0].id == "old-3"


def test_readers_see_the_vertical_and_its_models_at_once(path: Path) -> None:
    with IndexReader.open(path, refresh_s=60) as reader:
        grow(path)
        assert (len(reader.current()), reader.current().compatible_models) == (40, [])
        assert reader.refresh()
        assert (len(reader.current()), reader.current().compatible_models) == (52, ["model-b"])
