"""Large tables against exact search; an index that was read needs no disk."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.oracles.neighbours import exact_neighbours
from tests.search.conftest import MODEL, build, unit
from tests.serving.http.processes import wait_until
from univert.search.index import Index, IndexReader

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
        wait_until(lambda: reader.error is not None)


Large = tuple[Index, np.ndarray, np.ndarray, dict[str, np.ndarray]]


@pytest.fixture(scope="module", params=[6_000, pytest.param(25_000, marks=pytest.mark.slow)])
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Large]:
    rows, size = request.param, 64
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(rows // 5, size))
    product = rng.integers(0, len(centres), rows)
    vectors = unit(centres[product] + 0.6 * rng.normal(size=(rows, size)))
    columns = {
        "id": np.array([f"i{n}" for n in range(rows)], dtype=object),
        "vertical": np.array(["even" if n % 2 == 0 else "odd" for n in range(rows)], dtype=object),
        "brand": np.array(["rare" if n % 500 == 3 else "usual" for n in range(rows)], dtype=object),
        "product": np.array([f"p{n}" for n in product], dtype=object),
    }
    queries = unit(vectors[:60] + 0.05 * rng.normal(size=(60, size)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("univert.search.vector_index.EXACT_ROWS", rows // 5)
        patch.setattr("univert.search.memory.EXACT_ROWS", 100)
        index = build(tmp_path_factory.mktemp("large") / "index", vectors, columns)
        yield index, vectors, queries, columns


@pytest.mark.parametrize("vertical", [None, "odd"])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_recall_against_exact_search(large: Large, k: int, vertical: str | None) -> None:
    index, vectors, queries, columns = large
    assert index.approximate
    allowed = None if vertical is None else columns["vertical"] == vertical
    positions, distances = exact_neighbours(queries, vectors, k, allowed=allowed)
    where = {"vertical": vertical} if vertical else None
    answers = index.search_many(queries, k, where=where, model_fingerprint=MODEL)
    shared = [
        len({hit.id for hit in hits} & {f"i{n}" for n in near}) / k
        for hits, near in zip(answers, positions, strict=True)
    ]
    assert np.mean(shared) >= 0.99
    for hits, far in zip(answers, distances, strict=True):
        assert len(hits) == k
        assert hits[0].distance == pytest.approx(far[0], abs=5e-5)
        assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)
        assert vertical is None or {hit.vertical for hit in hits} == {vertical}


@pytest.mark.parametrize("exact", [False, True])
def test_several_threads_find_what_one_does(large: Large, monkeypatch: pytest.MonkeyPatch, exact: bool) -> None:
    index, _, queries, _ = large
    one = index.search_many(queries, 10, model_fingerprint=MODEL, exact=exact)
    monkeypatch.setattr("univert.search.memory._LOOKS_APART", 2)
    assert index.search_many(queries, 10, model_fingerprint=MODEL, exact=exact, threads=3) == one


def test_a_rare_value_still_gives_all_that_is_asked_for(large: Large) -> None:
    index, vectors, queries, columns = large
    positions, _ = exact_neighbours(queries, vectors, 10, allowed=columns["brand"] == "rare")
    answers = index.search_many(queries, 10, where={"brand": "rare"}, model_fingerprint=MODEL)
    assert [{hit.id for hit in hits} for hits in answers] == [{f"i{n}" for n in row} for row in positions]


def test_all_rows_can_be_asked_for(large: Large) -> None:
    index, vectors, queries, _ = large
    hits = index.search(queries[0], 10**9, model_fingerprint=MODEL)
    assert len({hit.id for hit in hits}) == len(vectors)
    assert [hit.id for hit in hits[:50]] == [f"i{n}" for n in exact_neighbours(queries[:1], vectors, 50)[0][0]]


def test_a_filter_that_leaves_little_near_the_query_still_gives_all_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("univert.search.vector_index.EXACT_ROWS", 500)
    monkeypatch.setattr("univert.search.vector_index._ROWS_A_PARTITION", 50)
    monkeypatch.setattr("univert.search.memory.EXACT_ROWS", 100)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 16))
    centres[:20, 0], centres[20:, 0] = -6, 6
    product = np.arange(4000) % 40
    vectors = unit(centres[product] + 0.05 * rng.normal(size=(4000, 16)))
    # shoes lie on one side, and a single one among the bags of each product on the other
    vertical = ["shoes" if product[n] < 20 or n < 40 else "bags" for n in range(4000)]
    index = build(tmp_path / "index", vectors, {"id": [f"i{n}" for n in range(4000)], "vertical": vertical})
    answers = index.search_many(vectors[60:80], 24, where={"vertical": "shoes"}, model_fingerprint=MODEL)
    assert [len(hits) for hits in answers] == [24] * 20


def test_of_many_that_are_alike_the_first_ids_are_given(
    grid: tuple[Index, np.ndarray, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    index, vectors, _ = grid
    few = index.search_many(vectors[:20], 30, model_fingerprint=MODEL)
    monkeypatch.setattr("univert.search.memory._MANY_ALIKE", 30)
    assert index.search_many(vectors[:20], 30, model_fingerprint=MODEL) == few
