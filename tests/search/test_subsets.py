"""What popular filters leave, kept: the same answers, sooner, within a budget."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from tests.search.conftest import MODEL, build, unit
from univert.search.filters import sql_condition
from univert.search.lance_store import LanceIndex
from univert.search.lance_subsets import Subset, Subsets

ROWS, SIZE = 6_000, 16


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """An index that goes through partitions, where a quarter of the images has the brand `b0`; some are copies."""
    vectors = unit(np.random.default_rng(0).normal(size=(ROWS, SIZE)))
    vectors[400:440] = vectors[400]
    numbers = range(ROWS)
    columns = {
        "id": np.array([f"i{n:04}" for n in numbers], dtype=object),
        "vertical": np.array(["all"] * ROWS, dtype=object),
        "brand": np.array([f"b{n % 4}" for n in numbers], dtype=object),
        "style": np.array([f"s{n // 1_500}" for n in numbers], dtype=object),
    }
    path = tmp_path_factory.mktemp("subsets") / "index"
    build(path, vectors, columns, exact_rows=1_000)
    return path, vectors


def subsets(index: LanceIndex) -> Subsets:
    return index._subsets


def ask(index: LanceIndex, vector: np.ndarray, k: int, where: dict[str, str]) -> list[tuple[str, float]]:
    hits = index.search(vector, k, where=where, model_fingerprint=MODEL)
    return [(hit.id, pytest.approx(hit.distance, abs=1e-5)) for hit in hits]


@pytest.mark.parametrize("k", [1, 10, 300])
def test_the_answer_is_the_exact_one(shop: tuple[Path, np.ndarray], k: int) -> None:
    index = LanceIndex.open(shop[0], exact_rows=1_000)
    where = {"brand": "b0"}
    for _ in range(2):
        index.search(shop[1][0], k, where=where, model_fingerprint=MODEL)
    subsets(index).wait()
    condition = sql_condition(where)
    assert condition is not None
    assert subsets(index).find(condition, 1_500, SIZE) is not None
    for vector in shop[1][[0, 1, 5]]:
        exact = index.exact_search(vector, k, where=where, model_fingerprint=MODEL)
        assert ask(index, vector, k, where) == [(hit.id, hit.distance) for hit in exact]
    together = index.search_many(shop[1][:40], k, where=where, model_fingerprint=MODEL)
    assert [[hit.id for hit in hits] for hits in together] == [
        [hit.id for hit in index.search(vector, k, where=where, model_fingerprint=MODEL)] for vector in shop[1][:40]
    ]


def test_copies_come_in_order_of_id(shop: tuple[Path, np.ndarray]) -> None:
    index = LanceIndex.open(shop[0], exact_rows=1_000)
    where = {"style": "s0"}
    for _ in range(2):
        index.search(shop[1][0], 10, where=where, model_fingerprint=MODEL)
    subsets(index).wait()
    hits = index.search(shop[1][400], 10, where=where, model_fingerprint=MODEL)
    assert [hit.id for hit in hits] == [f"i{n:04}" for n in range(400, 410)]


def test_only_what_is_asked_for_again_is_read(shop: tuple[Path, np.ndarray]) -> None:
    index = LanceIndex.open(shop[0], exact_rows=1_000)
    kept = subsets(index)
    assert kept.find("brand = 'b1'", 1_500, SIZE) is None
    kept.wait()
    assert kept.find("brand = 'b2'", 1_500, SIZE) is None
    kept.wait()
    assert kept.find("brand = 'b1'", 1_500, SIZE) is None, "asked for again: now it is being read"
    kept.wait()
    found = kept.find("brand = 'b1'", 1_500, SIZE)
    assert found is not None
    assert len(found.places) == len(found.vectors) == 1_500


def test_the_least_recently_used_makes_room(shop: tuple[Path, np.ndarray]) -> None:
    dataset = LanceIndex.open(shop[0])._dataset
    kept = Subsets(dataset, kept_bytes=2 * 1_500 * (4 * SIZE + 12), rest=0)

    def load(condition: str) -> Subset | None:
        for _ in range(2):
            kept.find(condition, 1_500, SIZE)
        kept.wait()
        return kept.find(condition, 1_500, SIZE)

    assert load("brand = 'b0'") is not None
    assert load("brand = 'b1'") is not None
    assert kept.find("brand = 'b0'", 1_500, SIZE) is not None
    assert load("brand = 'b2'") is not None
    assert kept.find("brand = 'b0'", 1_500, SIZE) is not None
    assert kept.find("brand = 'b1'", 1_500, SIZE) is None


@pytest.mark.parametrize(("condition", "rows"), [("brand = 'b0'", 10**7), (f"id = '{'x' * 2_000}'", 10)])
def test_what_is_too_large_is_left_alone(shop: tuple[Path, np.ndarray], condition: str, rows: int) -> None:
    kept = subsets(LanceIndex.open(shop[0]))
    for _ in range(3):
        assert kept.find(condition, rows, SIZE) is None
    kept.wait()
    assert kept.find(condition, rows, SIZE) is None


def test_from_many_threads(shop: tuple[Path, np.ndarray]) -> None:
    index = LanceIndex.open(shop[0], exact_rows=1_000)
    right = [hit.id for hit in index.exact_search(shop[1][3], 5, where={"brand": "b3"}, model_fingerprint=MODEL)]
    wrong = list[list[str]]()

    def work() -> None:
        for _ in range(20):
            hits = index.search(shop[1][3], 5, where={"brand": "b3"}, model_fingerprint=MODEL)
            if [hit.id for hit in hits] != right:
                wrong.append([hit.id for hit in hits])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    subsets(index).wait()
    assert not wrong


def test_other_filters_meanwhile_are_no_harm(shop: tuple[Path, np.ndarray]) -> None:
    kept = Subsets(LanceIndex.open(shop[0])._dataset, rest=0)
    for _ in range(2):
        kept.find("brand = 'b0'", 1_500, SIZE)
    for number in range(300):
        kept.find(f"brand = 'other {number}'", 10, SIZE)
    kept.wait()
    assert kept.find("brand = 'b0'", 1_500, SIZE) is not None
    for _ in range(2):
        kept.find("brand = 'b1'", 1_500, SIZE)
    kept.wait()
    assert kept.find("brand = 'b1'", 1_500, SIZE) is not None, "it goes on reading"


def test_lengths_that_are_not_quite_one() -> None:
    rng = np.random.default_rng(0)
    vectors = unit(rng.normal(size=(2_000, SIZE)))
    vectors *= rng.uniform(0.9995, 1.0005, size=(2_000, 1)).astype(np.float32)
    subset = Subset(places=np.arange(2_000, dtype=np.uint64), vectors=vectors, squares=np.square(vectors).sum(axis=1))
    for query, places in zip(vectors[:50], subset.candidates(vectors[:50], 10), strict=True):
        nearest = np.square(vectors - query).sum(axis=1).argsort()[:10]
        assert set(nearest) <= set(places.tolist())
