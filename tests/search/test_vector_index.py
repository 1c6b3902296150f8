"""What a search through the index takes is measured, and holds for what is added later, too."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.oracles.neighbours import exact_neighbours
from tests.search.conftest import MODEL, unit
from univert.search.exact import check_recall
from univert.search.index import Index
from univert.search.vector_index import partitions_of, search_effort, squared_distances
from univert.search.writer import IndexWriter

SIZE = 32


@pytest.fixture(autouse=True)
def small_structures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many partitions without a million rows."""
    monkeypatch.setattr("univert.search.vector_index._ROWS_A_PARTITION", 150)
    monkeypatch.setattr("univert.search.vector_index.EXACT_ROWS", 1_000)
    monkeypatch.setattr("univert.search.memory.EXACT_ROWS", 0)


def clustered(rows: int, seed: int, spread: float = 0.35) -> np.ndarray:
    """Unit vectors in clusters of ten, none of whose values is large."""
    rng = np.random.default_rng(seed)
    centres = rng.choice([-1.0, 1.0], size=(rows // 10, SIZE))
    return unit(centres[rng.integers(0, len(centres), rows)] + spread * rng.normal(size=(rows, SIZE)))


def pointed(rows: int, seed: int) -> np.ndarray:
    """Unit vectors most of whose length is in two values: far beyond those of `clustered`."""
    rng = np.random.default_rng(seed)
    vectors = 0.15 * rng.normal(size=(rows, SIZE))
    vectors[np.arange(rows), rng.integers(0, SIZE, rows)] += rng.choice([-1.0, 1.0], rows)
    vectors[np.arange(rows), rng.integers(0, SIZE, rows)] += rng.choice([-1.0, 1.0], rows)
    return unit(vectors)


def append(writer: IndexWriter, vectors: np.ndarray, vertical: str) -> None:
    ids = [f"{vertical}{number}" for number in range(len(vectors))]
    writer.upsert(vectors, pa.table({"id": ids, "vertical": [vertical] * len(vectors)}))


def recall(index: Index, vectors: np.ndarray, names: list[str], queries: np.ndarray, k: int) -> float:
    near, _ = exact_neighbours(queries, vectors, k)
    answers = index.search_many(queries, k, model_fingerprint=MODEL)
    shared = [
        len({hit.id for hit in hits} & {names[row] for row in rows}) / k
        for hits, rows in zip(answers, near, strict=True)
    ]
    return float(np.mean(shared))


def test_few_partitions_are_enough_where_neighbours_lie_together(tmp_path: Path) -> None:
    centres = np.repeat(clustered(300, 0, spread=0.2), 20, axis=0)
    vectors = unit(centres + 0.05 * np.random.default_rng(3).normal(size=centres.shape))
    with IndexWriter.create(tmp_path / "index", size=SIZE, model_fingerprint=MODEL) as writer:
        append(writer, vectors, "v")
        writer.publish()
    index = Index.open(tmp_path / "index")
    effort = search_effort(index._dataset)
    assert effort.like[10] <= 20, "of 40 partitions"
    queries = unit(vectors[:100] + 0.05 * np.random.default_rng(1).normal(size=(100, SIZE)))
    names = [f"v{n}" for n in range(6_000)]
    unlike = unit(np.random.default_rng(2).normal(size=(100, SIZE)))
    assert recall(index, vectors, names, queries, 10) >= 0.99
    assert recall(index, vectors, names, unlike, 10) >= 0.98
    check = check_recall(index, queries=100)
    assert check.recall >= 0.99
    assert check.recall_unlike >= 0.98
    far = squared_distances(np.concatenate([queries, unlike]), partitions_of(index._dataset)[0]).min(axis=1)
    partitions = effort.partitions(far, 10)
    assert partitions[:100].mean() <= partitions[100:].mean()


@pytest.mark.parametrize(("later", "rows"), [(clustered, 400), (pointed, 400), (pointed, 800)])
def test_what_is_added_later_is_found_and_takes_nothing_away(
    tmp_path: Path, later: Callable[[int, int], np.ndarray], rows: int
) -> None:
    first, second = clustered(5_000, 0), later(rows, 1)
    with IndexWriter.create(tmp_path / "index", size=SIZE, model_fingerprint=MODEL) as writer:
        append(writer, first, "old")
        writer.publish()
        append(writer, second, "new")
        writer.publish()
    index = Index.open(tmp_path / "index")
    vectors = np.concatenate([first, second])
    names = [f"old{n}" for n in range(len(first))] + [f"new{n}" for n in range(len(second))]
    for k in (10, 100, 300):
        assert recall(index, vectors, names, first[:60], k) >= 0.98
        assert recall(index, vectors, names, second[:60], k) >= 0.98


def test_it_comes_and_goes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained when it pays, and anew when outgrown; rows that came later are found at all times."""
    monkeypatch.setattr("univert.search.vector_index.EXACT_ROWS", 500)
    vectors = unit(np.random.default_rng(0).normal(size=(1500, SIZE)))
    with IndexWriter.create(tmp_path / "index", size=SIZE, model_fingerprint=MODEL) as writer:
        for start, stop, trained_on in (
            (0, 400, None),
            (400, 1000, 1000),
            (1000, 1040, 1000),
            (1040, 1080, 1000),
            (0, 10, 1000),  # renewed
            (1080, 1500, 1500),
        ):
            ids = [f"i{row}" for row in range(start, stop)]
            writer.upsert(vectors[start:stop], pa.table({"id": ids, "vertical": ["v"] * len(ids)}))
            writer.publish()
            index = Index.open(tmp_path / "index")
            effort = search_effort(index._dataset)
            assert (effort.rows if effort else None) == trained_on
            assert index.approximate == (trained_on is not None)
            assert check_recall(index, k=5, queries=40).recall >= 0.99
            assert [hit.id for hit in index.search(vectors[start], 1, model_fingerprint=MODEL)] == [f"i{start}"]
