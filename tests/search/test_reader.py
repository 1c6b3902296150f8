import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.search import generations
from tests.search.conftest import build
from tests.serving.http.processes import wait_until
from univert.core.errors import BadInputError
from univert.search.index import IndexReader
from univert.search.writer import IndexWriter

PUBLISHES = 10

READER_PROCESS = """
import sys, time
from tests.search import generations
from univert.search.index import IndexReader

with IndexReader.open(sys.argv[1], refresh_s=0.02) as reader:
    print("ready", flush=True)
    answers, seen = 0, set()
    while max(seen, default=0) < int(sys.argv[2]):
        seen.add(generations.answered(reader.current()))
        answers += 1
    assert reader.error is None, reader.error
    print(answers, len(seen), flush=True)
"""


def test_readers_do_not_notice_publications(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "index"
    generations.start(path)
    command = [sys.executable, "-W", "error", "-c", READER_PROCESS, str(path), str(PUBLISHES)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout.readline() == "ready\n"
        for number in range(1, PUBLISHES + 1):
            # a vector index is trained for half of the versions
            if number == 5:
                monkeypatch.setattr("univert.search.vector_index.EXACT_ROWS", generations.EXACT_ROWS)
            with IndexWriter.open(path) as writer:
                writer.upsert(*generations.generation(number))
                writer.publish()
        answers, versions = map(int, reader.stdout.readline().split())
        assert reader.wait() == 0
    assert answers >= versions > 1


def test_a_store_that_is_away_changes_nothing(tmp_path: Path) -> None:
    generations.start(tmp_path / "index")
    with IndexReader.open(tmp_path / "index", refresh_s=0.02) as reader:
        tags = tmp_path / "index" / "images.lance" / "_refs"
        away = tmp_path / "away"
        tags.rename(away)
        tags.write_text("no folder any more")
        wait_until(lambda: reader.error is not None)
        assert generations.published(reader.current()) == 0
        tags.unlink()
        away.rename(tags)
        wait_until(lambda: reader.error is None)


def test_a_version_that_must_not_be_used_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "index"
    generations.start(path)
    with pytest.raises(BadInputError, match="was made with model model-a"):
        IndexReader.open(path, check=lambda index: index.check_model("another"))
    with IndexReader.open(path, refresh_s=0.02, check=lambda index: index.check_model("model-a")) as reader:
        first = reader.current()
        with IndexWriter.open(path) as writer:
            writer.start_over(size=4, model_fingerprint="another")
            writer.upsert(np.eye(4, dtype=np.float32), pa.table({"id": list("abcd"), "vertical": ["v"] * 4}))
            writer.finish_rebuilding()
            writer.publish()
            wait_until(lambda: reader.error is not None)
            assert "was made with model another" in str(reader.error)
            with pytest.raises(BadInputError, match="was made with model another"):
                reader.refresh()
            assert reader.current() is first
            assert generations.published(first) == 0
            writer.roll_back(first.version)
        wait_until(lambda: reader.current() is not first)
        wait_until(lambda: reader.error is None)
        assert generations.published(reader.current()) == 0


@pytest.mark.parametrize("moved", [False, True])
def test_an_index_made_anew_at_the_same_place_is_taken_up(tmp_path: Path, moved: bool) -> None:
    """Its versions have the same numbers as those of the one before."""
    path, fresh = tmp_path / "index", tmp_path / "fresh"
    columns = {"id": ["old"], "vertical": ["v"]}
    before = build(path, np.eye(1, 4, dtype=np.float32), columns)
    with IndexReader.open(path, refresh_s=0.02) as reader:
        assert not reader.refresh()
        if not moved:
            shutil.rmtree(path)
        after = build(fresh if moved else path, np.eye(1, 4, dtype=np.float32), columns | {"id": ["new"]})
        if moved:
            shutil.rmtree(path)
            fresh.rename(path)
        assert (after.version, after.identity != before.identity) == (before.version, True)
        wait_until(lambda: reader.current().row("new") is not None)
        assert reader.current().row("old") is None
        assert not reader.refresh()


def test_many_publications_and_the_old_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is not taken for ever: with no grace for readers only the last versions stay."""
    monkeypatch.setattr("univert.search.versions.READERS_GRACE_S", 0.0)
    generations.start(tmp_path / "index")
    with IndexWriter.open(tmp_path / "index") as writer:
        for number in range(1, 9):
            writer.upsert(*generations.generation(number))
            writer.publish()
        kept = writer.stats().versions
        assert len(kept) == 5
        manifests = (tmp_path / "index" / "images.lance" / "_versions").glob("*.manifest")
        assert len(list(manifests)) <= 6
        assert writer.roll_back(kept[0].version) > kept[-1].version
        assert generations.working(writer) == 4
    with IndexReader.open(tmp_path / "index") as reader:
        assert generations.published(reader.current()) == 4
    shutil.rmtree(tmp_path / "index")
