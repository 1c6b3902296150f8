"""The index in an object store, against a server process of its own."""

from collections.abc import Iterator

import pytest

from tests.search import generations
from tests.search.object_store import BUCKET, object_store
from tests.serving.http.processes import wait_until
from univert.core.errors import BadInputError
from univert.search.index import Index, IndexReader
from univert.search.storage import Location, StorageError
from univert.search.versions import read_stats
from univert.search.writer import IndexWriter


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with object_store() as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr("univert.search.vector_index.EXACT_ROWS", generations.EXACT_ROWS)
        yield


@pytest.fixture
def uri(request: pytest.FixtureRequest) -> str:
    return f"s3://{BUCKET}/shops/{request.node.name}.index"


def test_from_creation_to_roll_back(uri: str) -> None:
    with pytest.raises(BadInputError, match="is not an index; make one with"):
        Index.open(uri)
    generations.start(uri)
    with IndexReader.open(uri, refresh_s=0.05) as reader:
        first = reader.current()
        assert generations.published(first) == 0
        with IndexWriter.open(uri) as writer:
            for number in (1, 2, 3):
                writer.upsert(*generations.generation(number))
                version = writer.publish()
            wait_until(lambda: reader.current().version == version, 20)
            assert generations.published(reader.current()) == 3
            assert reader.current().approximate
            writer.roll_back(first.version)
            reader.refresh()
            assert generations.published(reader.current()) == 0
    assert reader.error is None
    figures = read_stats(uri)
    assert figures.images == 40
    assert len(figures.versions) == 5


def test_of_two_writers_the_first_to_change_something_goes_on(uri: str) -> None:
    generations.start(uri)
    with IndexWriter.open(uri) as first, IndexWriter.open(uri) as second:
        first.upsert(*generations.generation(1))
        with pytest.raises(BadInputError, match="changed by another process since this one began; run the same"):
            second.upsert(*generations.generation(2))
        first.publish()
    assert generations.published(Index.open(uri)) == 1


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://bucket", "give a bucket and a prefix"),
        ("s3:///prefix", "give a bucket and a prefix"),
        ("https://example.com/index", "lies in a folder or at s3://bucket/prefix"),
        (f"s3://{BUCKET}/no/such/index", "is not an index"),
    ],
)
def test_locations_that_cannot_be(uri: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        Index.open(uri)


def test_a_store_that_is_away_is_another_thing_than_a_wrong_index() -> None:
    """One may pass, the other stays."""
    away = Location(
        uri="s3://bucket/index",
        folder=None,
        storage_options={
            "aws_endpoint": "http://127.0.0.1:9",
            "allow_http": "true",
            "aws_region": "here",
            "client_max_retries": "0",
        },
    )
    with pytest.raises(StorageError, match=r"s3://bucket/index cannot be read \(.*check the bucket's name") as raised:
        IndexReader.open(away)
    assert not isinstance(raised.value, BadInputError)
    assert raised.value.exit_code == 1


def test_storage_options_come_from_the_usual_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_REGION", "here")
    place = Location.of("s3://bucket/a/b/")
    assert place.uri == "s3://bucket/a/b"
    assert place.table_uri == "s3://bucket/a/b/images.lance"
    assert place.storage_options == {"aws_region": "here", "aws_endpoint": "http://127.0.0.1:9", "allow_http": "true"}
    assert Location.of("folder").storage_options is None
    assert "127.0.0.1" not in repr(place)
