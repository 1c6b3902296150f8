"""What is particular to an index in memory: it needs no disk, and processes share its vectors."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.search.conftest import MODEL, build, in_memory, unit
from univert.search.index import Index, IndexReader
from univert.search.memory import MemoryRows

VECTORS = unit(np.random.default_rng(0).normal(size=(300, 16)))
BOX = [1.0, 2.0, 30.5, 40.0]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    columns = {
        "id": [f"i{row}" for row in range(300)],
        "vertical": ["a", "b", "b"] * 100,
        "brand": [None, "x"] * 150,
        "box": [None, BOX, None] * 100,
    }
    return build(tmp_path / "index", VECTORS, columns)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("univert.search.memory._SHARED_BYTES", 0)


def files(index: Index) -> list[str]:
    return sorted(path.name for path in (index.path / "memory").glob("*"))


def test_an_index_that_was_moved_away_still_answers(index: Index) -> None:
    with IndexReader.open(index.path, refresh_s=0.01) as reader:
        before = index.search(VECTORS[7], 5, where={"brand": "x"}, model_fingerprint=MODEL)
        index.path.rename(index.path.with_name("elsewhere"))
        at_hand = reader.current()
        after = at_hand.search(VECTORS[7], 5, where={"brand": "x"}, model_fingerprint=MODEL)
        assert [hit.id for hit in after] == [hit.id for hit in before]
        assert at_hand.distinct("brand") == [("x", 150)]
        assert at_hand.row("i1") == dict.fromkeys(("product", "style", "split", "source")) | {
            "id": "i1",
            "vertical": "b",
            "brand": "x",
            "box": BOX,
        }
        assert np.abs(at_hand.vectors(["i9", "i1"]) - VECTORS[[9, 1]]).max() < 2e-5
        deadline = time.monotonic() + 10
        while reader.error is None:
            assert time.monotonic() < deadline, "a reader must tell that its index is gone"
            time.sleep(0.01)


@pytest.mark.usefixtures("shared")
def test_processes_share_one_file_of_vectors(index: Index) -> None:
    first, second = (MemoryRows(index._dataset, index.path) for _ in range(2))
    assert isinstance(first._vectors, np.memmap)
    (made,) = files(index)
    assert isinstance(second._vectors, np.memmap)
    assert first._vectors.filename == second._vectors.filename
    with Index.writer(index.path) as writer:
        writer.upsert(VECTORS[:1], pa.table({"id": ["new"], "vertical": ["a"]}))
        writer.publish()
    newer = in_memory(Index.open(index.path))
    assert len(files(index)) == 1
    assert files(index) != [made], "a file for each version, the old one goes"
    hits = [hit.id for hit in newer.search(VECTORS[0], 2, model_fingerprint=MODEL)]
    assert hits == ["i0", "new"]
    assert len(first) == 300, "who has the old one goes on with it"
    assert [hits[0].id for hits in first.search(VECTORS[:2], 1, {})] == ["i0", "i1"]


@pytest.mark.usefixtures("shared")
def test_a_folder_that_cannot_be_written_to_will_do(index: Index) -> None:
    (index.path / "memory").write_text("no folder")
    assert in_memory(index).search(VECTORS[3], 1, model_fingerprint=MODEL)[0].id == "i3"


@pytest.mark.parametrize(
    ("asked", "bytes_a_row", "held"), [(None, 100, True), (None, 1 << 50, False), (False, 100, False)]
)
def test_what_is_held_in_memory_depends_on_its_size(
    index: Index, monkeypatch: pytest.MonkeyPatch, asked: bool | None, bytes_a_row: int, held: bool
) -> None:
    monkeypatch.setattr("univert.search.memory._COLUMNS_BYTES", bytes_a_row)
    index.warm(asked)
    assert isinstance(index._rows, MemoryRows) == held
