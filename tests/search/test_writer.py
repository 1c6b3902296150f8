import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.search.conftest import unit
from univert.core.errors import BadInputError
from univert.search.index import Index
from univert.search.storage import Location, open_table
from univert.search.writer import IndexWriter

MODEL = "model-a"
SIZE = 6


def rows(ids: list[str], seed: int, vertical: str = "v") -> tuple[np.ndarray, pa.Table]:
    vectors = unit(np.random.default_rng(seed).normal(size=(len(ids), SIZE)))
    table = {"id": ids, "vertical": [vertical] * len(ids), "product": [str(seed)] * len(ids)}
    return vectors, pa.table({name: pa.array(values, pa.string()) for name, values in table.items()})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with IndexWriter.create(tmp_path / "index", size=SIZE, model_fingerprint=MODEL) as writer:
        writer.upsert(*rows(["a", "b", "c"], 1))
        writer.publish()
    return tmp_path / "index"


def content(index: Index) -> dict[str, str | None]:
    query = rows(["q"], 0)[0][0]
    return {hit.id: hit.product for hit in index.search(query, 10_000, model_fingerprint=MODEL)}


def test_a_rebuilding_that_was_interrupted_is_not_published(path: Path) -> None:
    version = Index.open(path).version
    with IndexWriter.open(path) as writer:
        writer.start_over(size=SIZE, model_fingerprint=MODEL)
        writer.upsert(*rows(["x"], 2))
    with IndexWriter.open(path) as writer:
        message = rf"holds 1 images so far; run the same .* --overwrite again, or .* roll-back INDEX {version}$"
        with pytest.raises(BadInputError, match=message):
            writer.publish()
        assert (len(Index.open(path)), writer.is_rebuilding) == (3, True)
        writer.finish_rebuilding()
        writer.publish()
        assert (list(content(Index.open(path))), writer.is_rebuilding) == (["x"], False)
        writer.start_over(size=SIZE, model_fingerprint=MODEL)
        writer.roll_back(version)
        assert (sorted(content(Index.open(path))), writer.is_rebuilding) == (["a", "b", "c"], False)


def test_a_new_index_says_how_to_go_on(tmp_path: Path) -> None:
    with IndexWriter.create(tmp_path / "index", size=SIZE, model_fingerprint=MODEL) as writer:
        writer.upsert(*rows(["a"], 1))
        with pytest.raises(BadInputError, match="again, or publish the part that is there"):
            Index.open(tmp_path / "index")
        with pytest.raises(BadInputError, match="exists already"):
            IndexWriter.create(tmp_path / "index", size=SIZE, model_fingerprint=MODEL)
        writer.start_over(size=SIZE, model_fingerprint=MODEL)
        writer.upsert(*rows(["a"], 1))
        with pytest.raises(BadInputError, match=r"run the same univert index command again$"):
            Index.open(tmp_path / "index")
        with pytest.raises(BadInputError, match=r"with --overwrite again$"):
            writer.publish()


actions = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), st.sets(st.sampled_from("abcdefgh"), min_size=1)),
        st.tuples(st.just("delete"), st.sets(st.sampled_from("abcdefgh"), min_size=1)),
        st.tuples(st.just("publish"), st.just(set[str]())),
        st.tuples(st.just("roll back"), st.just(set[str]())),
        st.tuples(st.just("reopen"), st.just(set[str]())),
    ),
    max_size=12,
)


@given(actions=actions)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_order_of_actions_equals_a_dictionary(
    actions: list[tuple[str, set[str]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("actions") / "index"
    writer = IndexWriter.create(path, size=SIZE, model_fingerprint=MODEL)
    model: dict[str, str] = {}
    shown: dict[str, str] | None = None
    history: dict[int, dict[str, str]] = {}
    for number, (action, names) in enumerate(actions):
        if action == "upsert":
            writer.upsert(*rows(sorted(names), number))
            model |= dict.fromkeys(names, str(number))
        elif action == "delete":
            assert writer.delete(sorted(names)) == len(names & model.keys())
            model = {name: value for name, value in model.items() if name not in names}
        elif action == "publish" and model:
            history[writer.publish()] = shown = dict(model)
        elif action == "roll back" and history:
            back = sorted(history)[len(history) // 2]
            history[writer.roll_back(back)] = shown = history[back]
            model = dict(shown)
        elif action == "reopen":
            writer.close()
            writer = IndexWriter.open(path)
        stored = writer.columns(["id", "product"]).to_pylist()
        assert sorted((row["id"], row["product"]) for row in stored) == sorted(model.items())
        if shown is not None:
            assert content(Index.open(path)) == shown
    writer.close()


def test_one_writer_at_a_time(path: Path) -> None:
    with IndexWriter.open(path), pytest.raises(BadInputError, match="is being written by another process"):
        IndexWriter.open(path)
    with IndexWriter.open(path) as writer:
        writer.close()
        writer.close()
        IndexWriter.open(path).close()
    program = (
        "import sys; from univert.search.writer import IndexWriter\n"
        "writer = IndexWriter.open(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        with pytest.raises(BadInputError, match="is being written by another process"):
            IndexWriter.open(path)
        other.kill()
    IndexWriter.open(path).close()


def racing(path: Path, meanwhile: Callable[[IndexWriter], object]) -> Iterator[tuple[np.ndarray, pa.Table]]:
    """Rows; while they are being written, another writer gets in, as it can in an object store, where nothing locks."""
    yield rows(["new"], 7)
    meanwhile(IndexWriter(Location.of(path), None, open_table(Location.of(path))))


@pytest.mark.parametrize(
    ("meanwhile", "left"),
    [
        (lambda other: other.upsert(*rows(["new"], 8)), ["a", "b", "c", "new"]),
        (lambda other: other.start_over(size=SIZE, model_fingerprint="other"), []),
    ],
)
def test_of_two_writers_that_meet_one_is_refused(path: Path, meanwhile: Any, left: list[str]) -> None:
    with IndexWriter.open(path) as writer:
        for change in (
            lambda: writer.upsert_parts(racing(path, meanwhile)),
            lambda: writer.delete(["a"]),
            writer.publish,
            lambda: writer.roll_back(1),
        ):
            with pytest.raises(BadInputError, match="changed by another process since this one began"):
                change()
    assert content(Index.open(path)) == {"a": "1", "b": "1", "c": "1"}, "what is published stays"
    with IndexWriter.open(path) as writer:
        assert sorted(writer.columns(["id"])["id"].to_pylist()) == left


def test_refused_rows_change_nothing(path: Path) -> None:
    vectors, table = rows(["x", "y"], 1)
    with IndexWriter.open(path) as writer:
        with pytest.raises(BadInputError, match="the id 'x' occurs more than once"):
            writer.upsert(*rows(["x", "x"], 1))
        with pytest.raises(BadInputError, match="the id 'y' occurs more than once"):
            writer.upsert_parts([(vectors, table), (vectors[1:], table.slice(1))])
        with pytest.raises(BadInputError, match="unit vectors"):
            writer.upsert(2 * vectors, table)
        assert writer.upsert(vectors[:0], table.slice(0, 0)) == 0
        assert writer.delete([]) == 0
        assert len(writer) == 3


def test_small_files_are_joined_by_themselves(path: Path) -> None:
    def files() -> int:
        return len(lance.dataset(str(path / "images.lance")).get_fragments())

    with IndexWriter.open(path) as writer:
        for number in range(40):
            writer.upsert(*rows([f"i{number}"], number))
        assert files() <= 17
        writer.delete(["a", "b", "c", *(f"i{number}" for number in range(30))])
        writer.publish()
        assert (files(), writer.stats().unpublished_changes) == (1, False)
    assert content(Index.open(path)).keys() == {f"i{n}" for n in range(30, 40)}


def test_a_lancedb_client_opens_the_table(path: Path) -> None:
    import lancedb

    table = lancedb.connect(str(path)).open_table("images")
    assert sorted(table.to_arrow()["id"].to_pylist()) == ["a", "b", "c"]
    assert table.tags.get_version("published") == Index.open(path).version


def test_rows_vectors_and_values(path: Path) -> None:
    index = Index.open(path)
    row = index.row("b")
    assert (row["id"], row["vertical"], row["product"], row["brand"]) == ("b", "v", "1", None)
    assert index.row("nobody") is None
    np.testing.assert_allclose(index.vectors(["c", "a"]), rows(["a", "b", "c"], 1)[0][[2, 0]], atol=2e-5)
    assert index.vectors([]).shape == (0, SIZE)
    with pytest.raises(BadInputError, match="no image 'nobody'"):
        index.vectors(["nobody"])
    assert index.distinct("product") == [("1", 3)]
    assert index.distinct("brand") == []
    assert index.distinct("id", 2) == [("a", 1), ("b", 1)]
    with pytest.raises(BadInputError, match="cannot filter by 'brnd'; filter by one of id, vertical"):
        index.distinct("brnd")
