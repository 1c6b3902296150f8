import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from univert.core.errors import BadInputError
from univert.curation.query_log import LoggedQuery, Result, read_query_log
from univert.data.rows import SourceProblem

ARMCHAIR = (Result("a", 1, "Blue armchair"), Result("b", 2, None))


def logged(path: Path) -> list[tuple[str, int, tuple[Result, ...] | None]]:
    rows = [row for row in read_query_log(path) if isinstance(row, LoggedQuery)]
    return [(row.query, row.asked, row.results) for row in rows]


def test_parquet_json_lines_and_csv_say_the_same(tmp_path: Path) -> None:
    results = [{"id": "b", "rank": 2, "title": None}, {"id": "a", "rank": 1, "title": "Blue armchair"}]
    rows = [{"query": "armchair", "count": 3, "results": results}, {"query": "weather", "count": 1, "results": []}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "log.parquet")
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cells = [[row["query"], str(row["count"]), json.dumps(row["results"]).replace('"', '""')] for row in rows]
    text = "query,count,results\n" + "".join(f'{a},{b},"{c}"\n' for a, b, c in cells)
    (tmp_path / "log.csv").write_text(text)
    for name in ("log.parquet", "log.jsonl", "log.csv"):
        assert logged(tmp_path / name) == [("armchair", 3, ARMCHAIR), ("weather", 1, ())]


@pytest.mark.parametrize("name", ["log.parquet", "log.jsonl", "log.csv"])
def test_rows_of_one_picture_become_one_query(tmp_path: Path, name: str) -> None:
    rows = pa.table({
        "query": ["armchair", "armchair", "lamp"], "count": [3, 3, 1], "id": ["b", "a", "c"], "rank": [2.0, 1.0, None],
        "title": [None, "Blue armchair", None],
    })  # fmt: skip
    if name.endswith("parquet"):
        pq.write_table(rows, tmp_path / name)
    elif name.endswith("csv"):
        (tmp_path / name).write_text(
            "query,count,id,rank,title\narmchair,3,b,2.0,\narmchair,3,a,1.0,Blue armchair\nlamp,1,c,,\n"
        )
    else:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows.to_pylist()))
    assert logged(tmp_path / name) == [("armchair", 3, ARMCHAIR), ("lamp", 1, (Result("c", 1),))]


def test_ids_alone_are_ranked_in_their_order_and_each_counts_once(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"query": "lamp", "results": ["x", "y", "x"]}\n{"query": "desk"}\n')
    assert logged(tmp_path / "log.jsonl") == [("lamp", 1, (Result("x", 1), Result("y", 2))), ("desk", 1, None)]


def test_a_result_without_an_id_is_kept_to_be_told_as_missing(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"query": "lamp", "results": [{"rank": 1}, "x"]}\n')
    assert logged(tmp_path / "log.jsonl") == [("lamp", 1, (Result("", 1), Result("x", 2)))]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ('{"query": ""}', "no query"),
        ('{"query": "lamp", "count": "many"}', "bad row"),
        ('{"query": "lamp", "count": 1.5}', "bad row"),
        ('{"query": "lamp", "results": 7}', "bad row"),
        ('{"query": "lamp", "results": {"id": "x", "rank": 3}}', "bad row"),
        ('{"query": "lamp", "results": "\\"abc\\""}', "bad row"),
        ('{"query": "lamp", "count": Infinity}', "bad row"),
        ('{"query": "lamp", "results": [{"id": "x", "rank": 1e999}]}', "bad row"),
        ('{"query": "lamp", "results": "[oops"}', "bad row"),
    ],
)
def test_a_bad_row_is_named_and_the_others_are_read(tmp_path: Path, row: str, kind: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"query": "desk"}}\n{row}\n{{"query": "sofa"}}\n')
    first, bad, last = read_query_log(path)
    assert isinstance(bad, SourceProblem)
    assert (bad.kind, "log.jsonl:2" in bad.origin) == (kind, True)
    assert [first.query, last.query] == ["desk", "sofa"]  # type: ignore[union-attr]


def test_numbers_too_large_for_a_column_are_the_largest(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"query": "desk", "count": 1e30, "results": [{"id": "x", "rank": 3e9}]}\n')
    assert logged(tmp_path / "log.jsonl") == [("desk", 2**31 - 1, (Result("x", 2**31 - 1),))]


def test_without_the_column_query_the_nearest_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("querry,count\nlamp,1\n")
    with pytest.raises(BadInputError, match="no column 'query'; is it 'querry'"):
        list(read_query_log(tmp_path / "log.csv"))
    with pytest.raises(BadInputError, match="no such file"):
        list(read_query_log(tmp_path / "none.csv"))
