from pathlib import Path

import pytest

from tests.data.pictures import write
from univert.core.errors import BadInputError
from univert.data.rows import SourceProblem
from univert.data.tables import read_table

WANTED = ("path", "vertical")


def rows_of(path: Path) -> list[tuple[str, object]]:
    """Line and content of each row; the kind of what is none."""
    found = []
    for item in read_table(path, WANTED, lambda names: None):
        if isinstance(item, SourceProblem):
            found.append((item.origin.removeprefix(f"{path}:"), item.detail))
        else:
            found.append((item[0].removeprefix(f"{path}:"), {name: item[1].get(name) for name in WANTED}))
    return found


def test_bad_lines_of_csv(tmp_path):
    text = b"path,vertical\na.png\nb.png,v,extra\n" + b"x" * 200_000 + b",v\nd.png,v\n"
    assert rows_of(write(tmp_path / "m.csv", text)) == [
        ("2", "1 fields, but the header has 2"),
        ("3", "3 fields, but the header has 2"),
        ("4", "field larger than field limit (131072)"),
        ("5", {"path": "d.png", "vertical": "v"}),
    ]


TABLE = 'path,vertical\nä.png,v\n"b\n.png",v w\n'


@pytest.mark.parametrize(
    "content",
    [
        TABLE.encode(),
        TABLE.replace("\n", "\r").encode(),
        TABLE.replace("\n", "\r\n").encode("utf-8-sig"),
        TABLE.replace(",", "\t").encode("utf-16"),
        ("sep=;\n" + TABLE.replace(",", ";")).encode(),
        TABLE.replace(",", "|").encode(),
        TABLE.replace("v\n", "v,\n").encode(),
    ],
    ids=["plain", "CR", "CRLF and mark", "UTF-16 and tabs", "sep=", "bars", "empty fields at the end"],
)
def test_as_spreadsheets_save(tmp_path, content):
    rows = rows_of(write(tmp_path / "m.csv", content))
    assert [fields for _, fields in rows] == [
        {"path": "ä.png", "vertical": "v"},
        {"path": "b\n.png", "vertical": "v w"},
    ]
    assert rows[0][0] == ("3" if content.startswith(b"sep=") else "2")


def test_json_lines(tmp_path):
    path = write(tmp_path / "m.jsonl", b'\n{"path": 1, "Vertical": null}\n[1]\n{\n{"vertical": "v"}\n')
    assert rows_of(path) == [
        ("2", {"path": 1, "vertical": None}),
        ("3", "not an object"),
        ("4", "not JSON (Expecting property name enclosed in double quotes)"),
        ("5", {"path": None, "vertical": "v"}),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.xlsx", b"", "unknown kind of file '.xlsx'; give one of .parquet"),
        ("t.csv", b"", "the first line is not a header"),
        ("t.csv", b"\0\0\0", "the first line is not a header"),
        ("t.csv", "path\n".encode("utf-16-le"), "in UTF-8"),
        ("t.parquet", b"path,vertical", "not a readable Parquet file"),
    ],
)
def test_files_that_are_no_tables(tmp_path, name, content, message):
    with pytest.raises(BadInputError, match=message):
        read_table(write(tmp_path / name, content), WANTED, lambda names: None)
