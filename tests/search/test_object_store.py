"""The index in an object store, against a server process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.search import generations
from tests.search.object_store import BUCKET, object_store
from univert.core.errors import BadInputError
from univert.search.lance_growth import add_vertical
from univert.search.lance_open import StorageError
from univert.search.lance_store import LanceIndex
from univert.search.place import Place
from univert.search.reader import IndexReader
from univert.search.statistics import read_statistics
from univert.search.writer import IndexWriter
from univert.search.writer_lock import Lease


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with object_store() as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def uri(request: pytest.FixtureRequest) -> str:
    return f"s3://{BUCKET}/shops/{request.node.name}.index"


def test_from_creation_to_roll_back(uri: str) -> None:
    with pytest.raises(BadInputError, match="is not an index; make one with"):
        LanceIndex.open(uri)
    generations.start(uri)
    with IndexReader.open(uri, refresh_s=0.05) as reader:
        first = reader.current()
        assert generations.published(first) == 0
        with IndexWriter.open(uri, exact_rows=generations.EXACT_ROWS) as writer:
            for number in (1, 2, 3):
                writer.upsert(*generations.generation(number))
                version = writer.publish()
            deadline = time.monotonic() + 20
            while reader.current().version != version and time.monotonic() < deadline:
                time.sleep(0.02)
            assert generations.published(reader.current()) == 3
            assert reader.current().approximate
            writer.roll_back(first.version)
            reader.refresh()
            assert generations.published(reader.current()) == 0
            writer.compact()
    assert reader.error is None
    figures = read_statistics(uri)
    assert (figures.images, figures.bytes) == (40, None)
    assert len(figures.publications) == 5
    rows = generations.generation(1)[1]
    add_vertical(
        uri,
        "hats",
        ["hat"],
        lambda: [
            (
                generations.generation(1)[0][:1],
                rows.slice(0, 1)
                .drop(["id", "vertical"])
                .add_column(0, "id", [["hat"]])
                .add_column(1, "vertical", [["hats"]]),
            )
        ],
        compatible_models=["model-b"],
    )
    grown = LanceIndex.open(uri)
    assert (len(grown), grown.compatible_models, grown.verticals) == (41, ["model-b"], ["hats", "v"])


def test_one_writer_at_a_time(uri: str) -> None:
    generations.start(uri)
    with (
        IndexWriter.open(uri),
        pytest.raises(BadInputError, match=r"is being written by process \d+ on .* s until its lease ends"),
    ):
        IndexWriter.open(uri)
    command = [sys.executable, "-m", "tests.search.generations", uri, "publish", "1000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(BadInputError, match=f"is being written by process {process.pid} on"):
            IndexWriter.open(uri)
        process.kill()
    assert generations.published(LanceIndex.open(uri)) >= 0


def test_the_lease_of_a_writer_that_was_killed_ends(uri: str) -> None:
    place = Place.of(uri)
    dead = Lease(place, lease_s=1.0)
    dead._released.set()  # its renewals stop, as if the process were gone
    with pytest.raises(BadInputError, match="is being written by"):
        Lease(place, lease_s=1.0)
    time.sleep(1.1)
    heir = Lease(place, lease_s=2.0)
    with pytest.raises(BadInputError, match="the right to write was lost"):
        dead.check()
    time.sleep(2.5)  # longer than a lease: it is renewed
    heir.check()
    with pytest.raises(BadInputError, match="is being written by"):
        Lease(place)
    heir.release()
    heir.release()
    Lease(place).release()


def test_a_lease_that_another_took_is_noticed(uri: str) -> None:
    place = Place.of(uri)
    first = Lease(place, lease_s=4.0)
    thief = Lease.__new__(Lease)
    thief._place, thief._lease_s, thief._token, thief._table = place, 60.0, "thief", first._open()
    thief._write()
    first._thread.join(timeout=30)  # its next renewal finds the thief and is its last
    with pytest.raises(BadInputError, match="the right to write was lost \\(taken by"):
        first.check()
    first.release()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://bucket", "give a bucket and a prefix"),
        ("s3:///prefix", "give a bucket and a prefix"),
        ("https://example.com/index", "lies in a folder or at s3://bucket/prefix"),
        ("s3://no-such-bucket/index", "is not an index|cannot be read"),
    ],
)
def test_places_that_cannot_be(uri: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        LanceIndex.open(uri)


def test_a_store_that_is_away_is_another_thing_than_a_wrong_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """One may pass, the other stays."""
    away = Place(
        uri="s3://bucket/index",
        folder=None,
        storage_options={
            "aws_endpoint": "http://127.0.0.1:9",
            "allow_http": "true",
            "aws_region": "here",
            "client_max_retries": "0",
        },
    )
    with pytest.raises(StorageError, match=r"s3://bucket/index cannot be read \(.*try again") as raised:
        IndexReader.open(away)
    assert not isinstance(raised.value, BadInputError)
    assert raised.value.exit_code == 1


def test_storage_options_come_from_the_usual_variables() -> None:
    place = Place.of("s3://bucket/a/b/", {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_REGION": "here"})
    assert place.uri == "s3://bucket/a/b"
    assert place.table_uri == "s3://bucket/a/b/images.lance"
    assert place.storage_options == {"aws_region": "here", "aws_endpoint": "http://127.0.0.1:9", "allow_http": "true"}
    assert Place.of("s3://bucket/a", {}).storage_options == {"aws_region": "us-east-1"}
    assert Place.of("folder").storage_options is None
    assert "127.0.0.1" not in repr(place)
