from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lance
import lancedb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.search import generations
from tests.search.conftest import unit
from univert.core.errors import BadInputError
from univert.search.exact import exact_neighbours
from univert.search.lance_store import LanceIndex
from univert.search.place import Place
from univert.search.writer import IndexWriter
from univert.search.writer_lock import Lease

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


def content(index: LanceIndex) -> dict[str, str | None]:
    query = rows(["q"], 0)[0][0]
    return {hit.id: hit.product for hit in index.search(query, 10_000, model_fingerprint=MODEL)}


def test_changes_are_seen_when_they_are_published(path: Path) -> None:
    before = LanceIndex.open(path)
    with IndexWriter.open(path) as writer:
        assert writer.upsert(*rows(["c", "d"], 2)) == 2
        assert writer.delete(["a", "nobody"]) == 1
        assert len(writer) == 3
        assert content(LanceIndex.open(path)) == {"a": "1", "b": "1", "c": "1"}
        assert writer.statistics().unpublished_changes
        version = writer.publish()
        assert writer.publish() == version
        assert not writer.statistics().unpublished_changes
    after = LanceIndex.open(path)
    assert after.version == version > before.version
    assert content(after) == {"b": "1", "c": "2", "d": "2"}
    assert content(before) == {"a": "1", "b": "1", "c": "1"}
    assert content(LanceIndex.open(path, version=before.version)) == {"a": "1", "b": "1", "c": "1"}


def test_roll_back_and_go_on_from_there(path: Path) -> None:
    first = LanceIndex.open(path).version
    with IndexWriter.open(path) as writer:
        writer.upsert(*rows(["d"], 2))
        second = writer.publish()
        writer.upsert(*rows(["e"], 3))  # not published, and gone with the rest
        third = writer.roll_back(first)
        assert third > second
        assert content(LanceIndex.open(path)) == {"a": "1", "b": "1", "c": "1"}
        writer.upsert(*rows(["f"], 4))
        writer.publish()
        assert sorted(content(LanceIndex.open(path))) == ["a", "b", "c", "f"]
        with pytest.raises(BadInputError, match=f"no published version 999 to roll back to; there are: {first}"):
            writer.roll_back(999)
        assert sorted(content(LanceIndex.open(path, version=second))) == ["a", "b", "c", "d"]


def test_discard_takes_the_working_copy_back(path: Path) -> None:
    with IndexWriter.open(path) as writer:
        writer.start_over(size=SIZE + 1, model_fingerprint="other")
        assert (len(writer), writer.size, writer.model_fingerprint) == (0, SIZE + 1, "other")
        writer.discard()
        assert (len(writer), writer.size, writer.model_fingerprint) == (3, SIZE, MODEL)
        assert not writer.is_rebuilding


def test_a_rebuilding_that_was_interrupted_is_not_published(path: Path) -> None:
    version = LanceIndex.open(path).version
    with IndexWriter.open(path) as writer:
        writer.start_over(size=SIZE, model_fingerprint=MODEL)
        writer.upsert(*rows(["x"], 2))
    with IndexWriter.open(path) as writer:
        message = rf"holds 1 images so far; run the same .* --overwrite again, or .* roll-back INDEX {version}$"
        with pytest.raises(BadInputError, match=message):
            writer.publish()
        assert len(LanceIndex.open(path)) == 3
        writer.compact()
        assert (len(LanceIndex.open(path)), writer.is_rebuilding) == (3, True)
        writer.publish(rebuilt=True)
        assert (list(content(LanceIndex.open(path))), writer.is_rebuilding) == (["x"], False)
        writer.start_over(size=SIZE, model_fingerprint=MODEL)
        writer.roll_back(version)
        assert (sorted(content(LanceIndex.open(path))), writer.is_rebuilding) == (["a", "b", "c"], False)


def test_a_new_index_says_how_to_go_on(tmp_path: Path) -> None:
    with IndexWriter.create(tmp_path / "index", size=SIZE, model_fingerprint=MODEL) as writer:
        writer.upsert(*rows(["a"], 1))
        with pytest.raises(BadInputError, match="again, or publish the part that is there"):
            LanceIndex.open(tmp_path / "index")
        writer.start_over(size=SIZE, model_fingerprint=MODEL)
        writer.upsert(*rows(["a"], 1))
        with pytest.raises(BadInputError, match=r"run the same univert index command again$"):
            LanceIndex.open(tmp_path / "index")
        with pytest.raises(BadInputError, match=r"with --overwrite again$"):
            writer.publish()


actions = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), st.sets(st.sampled_from("abcdefgh"), min_size=1)),
        st.tuples(st.just("delete"), st.sets(st.sampled_from("abcdefgh"), min_size=1)),
        st.tuples(st.just("publish"), st.just(set[str]())),
        st.tuples(st.just("roll back"), st.just(set[str]())),
        st.tuples(st.just("compact"), st.just(set[str]())),
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
        elif action == "compact":
            writer.compact()
        elif action == "reopen":
            writer.close()
            writer = IndexWriter.open(path)
        stored = writer.columns(["id", "product"]).to_pylist()
        assert sorted((row["id"], row["product"]) for row in stored) == sorted(model.items())
        if shown is not None:
            assert content(LanceIndex.open(path)) == shown
    writer.close()


def test_one_writer_at_a_time(path: Path) -> None:
    with IndexWriter.open(path), pytest.raises(BadInputError, match=r"is being written by process \d+ on"):
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
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(BadInputError, match=f"is being written by process {other.pid} on"):
            IndexWriter.open(path)
        with (
            pytest.raises(BadInputError, match="is being written by"),
            LanceIndex.create(path, size=2, model_fingerprint="m", overwrite=True),
        ):
            pass
        other.kill()
    IndexWriter.open(path).close()


def test_a_lease_ends_when_it_says_so_however_slow_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may take it from the moment that is written down, not from when the writing was done."""
    write = lance.LanceDataset.update_config

    def slow(self: Any, values: Any) -> Any:
        time.sleep(0.4)
        return write(self, values)

    monkeypatch.setattr(lance.LanceDataset, "update_config", slow)
    lease = Lease(Place.of(tmp_path), lease_s=0.3)
    with pytest.raises(BadInputError, match="the right to write was lost"):
        lease.check()
    lease.release()


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


def test_an_empty_index_is_not_published(tmp_path: Path, path: Path) -> None:
    with (
        IndexWriter.create(tmp_path / "empty", size=SIZE, model_fingerprint=MODEL) as writer,
        pytest.raises(BadInputError, match="nothing to publish"),
    ):
        writer.publish()
    with pytest.raises(BadInputError, match="has no published version yet: it is being made"):
        LanceIndex.open(tmp_path / "empty")
    with pytest.raises(BadInputError, match="exists already"):
        IndexWriter.create(path, size=SIZE, model_fingerprint=MODEL)
    with pytest.raises(BadInputError, match="no such index"):
        IndexWriter.open(tmp_path / "nowhere")


def test_statistics(path: Path) -> None:
    with IndexWriter.open(path) as writer:
        writer.upsert(*rows(["d", "e"], 2, "w"))
        writer.delete(["a"])
        figures = writer.statistics()
    assert (figures.images, figures.published_images) == (4, 3)
    assert figures.verticals == {"v": 2, "w": 2}
    assert (figures.size, figures.model_fingerprint, figures.approximate) == (SIZE, MODEL, False)
    assert [entry.version for entry in figures.publications] == [figures.published_version]
    assert figures.bytes is not None
    assert json.loads(json.dumps(figures.to_dict()))["unpublished_changes"] is True


def test_the_vector_index_comes_and_goes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained when it pays, added to, and trained anew when outgrown; rows that came later are found at all times."""
    monkeypatch.setattr("univert.search.lance_structures._TAIL_ROWS", 50)
    rng = np.random.default_rng(0)
    vectors = unit(rng.normal(size=(1500, SIZE)))
    names = [f"i{row}" for row in range(1500)]

    def add(writer: IndexWriter, start: int, stop: int) -> None:
        writer.upsert(vectors[start:stop], rows(names[start:stop], 0)[1])

    def check(stop: int) -> LanceIndex:
        index = LanceIndex.open(tmp_path / "index", exact_rows=100)
        positions, _ = exact_neighbours(vectors[:stop:40], vectors[:stop], 5)
        answers = index.search_many(vectors[:stop:40], 5, model_fingerprint=MODEL)
        shared = [
            len({hit.id for hit in hits} & {names[n] for n in near}) / 5
            for hits, near in zip(answers, positions, strict=True)
        ]
        assert np.mean(shared) >= 0.99
        return index

    options = {"size": SIZE, "model_fingerprint": MODEL, "exact_rows": 500}
    with IndexWriter.create(tmp_path / "index", **options) as writer:  # type: ignore[arg-type]
        add(writer, 0, 400)
        writer.publish()
        assert not check(400).approximate
        add(writer, 400, 1000)
        writer.publish()
        assert check(1000).approximate
        add(writer, 1000, 1040)
        writer.publish()
        check(1040)
        assert writer.statistics().unindexed_images == 40
        add(writer, 1040, 1100)
        writer.publish()
        check(1100)
        assert writer.statistics().unindexed_images == 0
        assert len(lance.dataset(str(tmp_path / "index" / "images.lance")).describe_indices()) == 8
        writer.delete(names[:10])
        add(writer, 0, 10)
        add(writer, 1100, 1500)
        writer.publish()
        check(1500)
        assert writer.statistics().unindexed_images == 0


def test_small_files_are_joined_by_themselves(tmp_path: Path) -> None:
    with IndexWriter.create(tmp_path / "index", size=SIZE, model_fingerprint=MODEL) as writer:
        for number in range(40):
            writer.upsert(*rows([f"i{number}"], number))
        assert writer.statistics().files <= 17
        writer.delete([f"i{number}" for number in range(30)])
        writer.publish()
        figures = writer.statistics()
        assert (figures.images, figures.deleted_rows) == (10, 0)
        writer.upsert(*rows(["late"], 1))
        writer.compact()  # in the working copy alone
        assert (writer.statistics().files, writer.statistics().unpublished_changes) == (1, True)
        assert len(LanceIndex.open(tmp_path / "index")) == 10
        writer.publish()
        writer.delete(["late"])
        writer.publish()
        writer.compact()  # all was published: readers get the joined files
        assert not writer.statistics().unpublished_changes
        assert content(LanceIndex.open(tmp_path / "index")).keys() == {f"i{n}" for n in range(30, 40)}


def test_a_new_index_has_nothing_left_to_publish(tmp_path: Path) -> None:
    with LanceIndex.create(tmp_path / "index", size=SIZE, model_fingerprint=MODEL) as filler:
        filler.add(*rows(["a"], 1))
        filler.add(*rows(["b"], 2))
    with IndexWriter.open(tmp_path / "index") as writer:
        assert not writer.statistics().unpublished_changes


def old_index(path: Path, content_rows: int = 5) -> None:
    """As made before there were published versions."""
    vectors, table = rows([f"i{row}" for row in range(content_rows)], 3)
    columns = {
        name: table[name] if name in table.column_names else pa.nulls(content_rows, pa.string())
        for name in ("id", "vertical", "product", "brand", "style", "split", "source", "uri")
    }
    whole = pa.table(
        {
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), SIZE),
            **columns,
            "image": pa.array([b"picture"] * content_rows, pa.binary()),
            "box": pa.nulls(content_rows, pa.list_(pa.float64())),
        }
    ).replace_schema_metadata({"univert.index_format": "1", "univert.model_fingerprint": MODEL})
    lancedb.connect(str(path)).create_table("images", whole)


def test_an_index_of_the_old_format_opens_and_is_brought_up_to_date(tmp_path: Path) -> None:
    old_index(tmp_path / "index")
    old = LanceIndex.open(tmp_path / "index")
    assert content(old) == {f"i{row}": "3" for row in range(5)}
    assert old.published_now() is None
    with IndexWriter.open(tmp_path / "index") as writer:
        assert content(LanceIndex.open(tmp_path / "index")) == content(old)
        writer.upsert(*rows(["new"], 4))
        writer.publish()
    assert len(LanceIndex.open(tmp_path / "index")) == 6
    assert content(old) == {f"i{row}": "3" for row in range(5)}


def test_a_lancedb_client_opens_the_table(path: Path) -> None:
    table = lancedb.connect(str(path)).open_table("images")
    assert sorted(table.to_arrow()["id"].to_pylist()) == ["a", "b", "c"]
    assert table.tags.get_version("published") == LanceIndex.open(path).version


def test_rows_vectors_and_values(path: Path) -> None:
    index = LanceIndex.open(path)
    row = index.row("b")
    assert row is not None
    assert (row["id"], row["vertical"], row["product"], row["brand"]) == ("b", "v", "1", None)
    assert index.row("nobody") is None
    np.testing.assert_array_equal(index.vectors(["c", "a"]), rows(["a", "b", "c"], 1)[0][[2, 0]])
    assert index.vectors([]).shape == (0, SIZE)
    with pytest.raises(BadInputError, match="no image 'nobody'"):
        index.vectors(["nobody"])
    assert index.distinct("product") == [("1", 3)]
    assert index.distinct("brand") == []
    assert index.distinct("id", 2) == [("a", 1), ("b", 1)]
    with pytest.raises(BadInputError, match="did you mean 'brand'"):
        index.distinct("brnd")


def test_generations_tell_broken_states() -> None:
    ids = [f"image-{row}" for row in range(40)]
    assert generations.judge(["0"] * 40, ids) == 0
    for marks, names in ((["0"] * 39, ids[:39]), (["0"] * 41, [*ids, ids[0]]), ([*["0"] * 39, "1"], ids)):
        with pytest.raises((AssertionError, ValueError)):
            generations.judge(marks, names)
