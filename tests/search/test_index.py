import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.oracles.neighbours import exact_neighbours
from tests.search.conftest import MODEL, build, search_image, unit
from tests.small_shop import catalogue, index, model, picture
from univert.core.errors import BadInputError
from univert.models.embedder import Embedder
from univert.search.index import Index
from univert.search.query import Hit, Picture

__all__ = ["catalogue", "index", "model"]  # fixtures

Grid = tuple[Index, np.ndarray, dict[str, np.ndarray]]

WHERES: dict[str, Any] = {
    "none": {},
    "one value": {"vertical": "shoes"},
    "list": {"vertical": ["shoes", "tops"], "brand": "Bär"},
    "null": {"brand": None},
    "value or null": {"brand": ["Aal", None], "vertical": "bags"},
    "rare": {"style": "rare"},
    "nothing": {"brand": "nobody"},
}


def allowed_rows(columns: dict[str, np.ndarray], where: dict[str, Any]) -> np.ndarray:
    allowed = np.ones(len(columns["id"]), dtype=bool)
    for name, value in where.items():
        values = value if isinstance(value, list) else [value]
        allowed &= np.array([entry in values for entry in columns[name]])
    return allowed


@pytest.mark.parametrize("where", WHERES.values(), ids=WHERES.keys())
@pytest.mark.parametrize("k", [1, 10, 333, 5000])
def test_equals_the_exact_oracle_ties_included(grid: Grid, where: dict[str, Any], k: int) -> None:
    index, vectors, columns = grid
    queries = vectors[[0, 17, 1999]]
    positions, distances = exact_neighbours(
        queries, vectors, k, ids=list(columns["id"]), allowed=allowed_rows(columns, where)
    )
    answers = index.search_many(queries, k, where=where, model_fingerprint=MODEL)
    assert [[hit.id for hit in hits] for hits in answers] == [list(columns["id"][row]) for row in positions]
    assert [[hit.distance for hit in hits] for hits in answers] == distances.tolist()


def test_copies_of_one_picture_come_in_order_of_id(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    vectors = unit(rng.normal(size=(3000, 8)))
    vectors[:2000] = vectors[0]
    names = [f"i{number}" for number in rng.permutation(3000)]
    index = build(tmp_path / "index", vectors, {"id": names, "vertical": ["v"] * 3000})
    queries = np.concatenate([np.repeat(vectors[:1], 40, axis=0), vectors[2000:2003]])
    positions, _ = exact_neighbours(queries, vectors, 24, ids=names)
    expected = [[names[row] for row in near] for near in positions]
    answers = index.search_many(queries, 24, model_fingerprint=MODEL)
    assert [[hit.id for hit in hits] for hits in answers] == expected


def test_one_query_at_a_time_equals_many(grid: Grid) -> None:
    index, vectors, _ = grid
    many = index.search_many(vectors[:258], 7, model_fingerprint=MODEL)
    assert len(many) == 258
    for position in (0, 255, 256, 257):
        assert index.search(vectors[position], 7, model_fingerprint=MODEL) == many[position]
    assert index.search_many(np.empty((0, 16)), 7, model_fingerprint=MODEL) == []


def test_hits_carry_the_columns(grid: Grid) -> None:
    index, vectors, columns = grid
    row = 1607
    hits = index.search(vectors[row], 1, where={"id": columns["id"][row]}, model_fingerprint=MODEL)
    expected = Hit(
        id=columns["id"][row],
        distance=0.0,
        vertical=columns["vertical"][row],
        product=columns["product"][row],
        brand=columns["brand"][row],
        style="rare",
    )
    assert hits == [expected]
    assert json.loads(json.dumps(dataclasses.asdict(hits[0])))["style"] == "rare"


HOSTILE = ["", "'", "''", "\\", "\\'", "' OR 1=1 --", "'; DROP TABLE images; --", '"', "`brand`", "%", "_", "NULL"]
HOSTILE += ["\n", "\0", "é", "e\u0301", "日本", "🦊", "a\u202eb", "{{ 7*7 }}", "<script>", "x" * 3000, "$1", "?"]


def test_hostile_names_are_only_names(tmp_path: Path) -> None:
    count = len(HOSTILE)
    vectors = unit(np.random.default_rng(2).normal(size=(count, 8)))
    columns = {"id": HOSTILE, "vertical": HOSTILE, "brand": HOSTILE, "image": [name.encode() for name in HOSTILE]}
    index = build(tmp_path / "an index's \\ é #1 %20", vectors, columns)
    assert index.verticals == sorted(HOSTILE)
    for name in HOSTILE:
        for column in ("id", "vertical", "brand"):
            hits = index.search(vectors[0], count, where={column: name}, model_fingerprint=MODEL)
            assert [hit.id for hit in hits] == [name]
    assert [picture.image for picture in index.pictures(HOSTILE)] == [name.encode() for name in HOSTILE]


@pytest.mark.parametrize(
    ("vector", "k", "where", "message"),
    [
        (np.full(16, np.nan), 3, None, "must be finite"),
        (np.zeros(16), 3, None, "row 0 has length 0"),
        (np.ones(16), 3, None, "row 0 has length 4"),
        (np.full(8, 8**-0.5), 3, None, r"shape \(N, 16\)"),
        (np.full((1, 16), 0.25), 3, None, r"shape \(N, 16\)"),
        ("a photo", 3, None, "must be numbers"),
        (np.full(16, 0.25), 0, None, "k must be at least 1, got 0"),
        (np.full(16, 0.25), 1.5, None, "whole number"),
        (np.full(16, 0.25), 3, {"brnad": "x"}, "filter by one of id, vertical, product, brand"),
        (np.full(16, 0.25), 3, {"vertical": "shoe"}, "did you mean 'shoes'"),
    ],
)
def test_refuses_bad_queries(grid: Grid, vector: Any, k: Any, where: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        grid[0].search(vector, k, where=where, model_fingerprint=MODEL)


def test_pictures_in_the_order_asked_for(tmp_path: Path) -> None:
    box = (1.0, 2.0, 30.5, 40.0)
    columns = {
        "id": ["a", "b", "c"],
        "vertical": ["v"] * 3,
        "image": [b"A", b"B", None],
        "uri": [None, None, "file:///c.jpg"],
        "box": [None, list(box), None],
    }
    index = build(tmp_path / "index", np.eye(3, dtype=np.float32), columns)
    a, b, c = (Picture(image=b"A"), Picture(image=b"B", box_xyxy_px=box), Picture(image=None, uri="file:///c.jpg"))
    assert index.pictures(["c", "a", "b", "a"]) == [c, a, b, a]
    assert index.pictures([]) == []
    with pytest.raises(BadInputError, match="no image 'd'"):
        index.pictures(["a", "d"])


@pytest.mark.parametrize(
    ("vectors", "columns", "message"),
    [
        (np.eye(2), {"id": ["a"], "vertical": ["v"]}, "2 vectors for 1 rows"),
        (np.eye(2), {"id": ["a", None], "vertical": ["v", "v"]}, "needs id"),
        (np.eye(2), {"id": ["a", "b"]}, "needs vertical"),
        (np.eye(2), {"id": ["a", "b"], "vertical": ["v", "v"], "brnd": ["x", "y"]}, "did you mean 'brand'"),
        (np.eye(2), {"id": ["a", "a"], "vertical": ["v", "v"]}, "the id 'a' occurs more than once"),
        (np.eye(2) * 2, {"id": ["a", "b"], "vertical": ["v", "v"]}, "unit vectors, row 0 has length 2"),
        (np.eye(3), {"id": ["a", "b", "c"], "vertical": ["v"] * 3}, r"shape \(N, 2\)"),
        (np.empty((0, 2)), {"id": pa.array([], pa.string()), "vertical": pa.array([], pa.string())}, "would be empty"),
    ],
)
def test_a_start_that_fails_leaves_nothing(tmp_path: Path, vectors: Any, columns: Any, message: str) -> None:
    with (
        pytest.raises(BadInputError, match=message),
        Index.create(tmp_path / "index", size=2, model_fingerprint=MODEL) as writer,
    ):
        writer.upsert(vectors, pa.table(columns))
        writer.publish()
    assert list(tmp_path.iterdir()) == []


def test_opening_what_is_no_index(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no such index; make one with: univert index"):
        Index.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(BadInputError, match="is not an index"):
        Index.open(tmp_path)
    file = tmp_path / "file"
    file.write_text("text")
    with pytest.raises(BadInputError, match="is not an index"):
        Index.open(file)
    (tmp_path / "half" / "images.lance" / "_versions").mkdir(parents=True)
    with pytest.raises(BadInputError, match="is not an index"):
        Index.open(tmp_path / "half")
    (tmp_path / "half" / "images.lance" / "_versions" / "1.manifest").write_bytes(b"nothing of the kind")
    with pytest.raises(BadInputError, match="damaged index"):
        Index.open(tmp_path / "half")


def test_opening_another_format(tmp_path: Path) -> None:
    lance.write_dataset(pa.table({"id": ["a"]}), str(tmp_path / "images.lance"))
    with pytest.raises(BadInputError, match="index format none where this version reads 4"):
        Index.open(tmp_path)


def test_a_photo_finds_its_image(model: Embedder, index: Index, tmp_path: Path) -> None:
    content = picture(4, 1)
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    hits = search_image(model, index, content, 5)
    assert len(hits) == 5
    assert hits[0].id == "p4-1"
    assert hits[0].distance == pytest.approx(0, abs=1e-4)
    expected = [hit.id for hit in hits]
    for image in (path, str(path), Image.open(io.BytesIO(content))):
        assert [hit.id for hit in search_image(model, index, image, 5)] == expected
