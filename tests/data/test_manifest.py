from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.pictures import png, write
from univert.core.errors import BadInputError
from univert.data.readers import count_rows, open_source, read_manifest
from univert.data.rows import SourceProblem, SourceRow


def csv_file(folder: Path, text: str | bytes, name: str = "manifest.csv") -> Path:
    return write(folder / name, text if isinstance(text, bytes) else text.encode())


def only_row(source: Path) -> SourceRow:
    (row,) = read_manifest(source)
    assert isinstance(row, SourceRow), row
    return row


def only_problem(source: Path) -> SourceProblem:
    (problem,) = read_manifest(source)
    assert isinstance(problem, SourceProblem), problem
    return problem


def test_every_column(tmp_path):
    source = csv_file(
        tmp_path,
        "id,path,vertical,product,brand,style,split,source,box,price\n"
        'one,img/1.png,shoes,p1,Acme,boot,test,shop,"1,2,3.5,4",99\n',
    )
    assert only_row(source) == SourceRow(
        origin=f"{source}:2",
        id="one",
        path=tmp_path / "img/1.png",
        vertical="shoes",
        product="p1",
        brand="Acme",
        style="boot",
        split="test",
        source="shop",
        box_xyxy_px=(1.0, 2.0, 3.5, 4.0),
    )


def test_uris(tmp_path):
    odd = tmp_path / "a b#?ü.png"
    text = f"uri,vertical\n{odd.as_uri()},v\nsub/c.png,v\nfile://localhost{tmp_path}/d.png,v\n"
    rows = list(read_manifest(csv_file(tmp_path, text)))
    assert [row.path for row in rows] == [odd, tmp_path / "sub/c.png", tmp_path / "d.png"]
    for uri in ("https://shop.example/1.png", "s3://bucket/1.png", "file://server/1.png"):
        problem = only_problem(csv_file(tmp_path, f"uri,vertical\n{uri},v\n"))
        assert problem.kind == "unsupported uri"
        assert "copy the image to this machine" in problem.fix


@pytest.mark.parametrize(
    ("header", "fields", "box"),
    [
        ("box", '"1,2,3,4"', (1, 2, 3, 4)),
        ("box", '"(1,2,3,4)"', (1, 2, 3, 4)),
        ("x0,y0,x1,y1", "1,2,3,4", (1, 2, 3, 4)),
        ("box", "", None),
        ("x0,y0,x1,y1", ",,,", None),
        ("x0,y0,x1,y1", '"1,5","2,0",3,4', (1.5, 2, 3, 4)),
    ],
)
def test_boxes(tmp_path, header, fields, box):
    row = only_row(csv_file(tmp_path, f"path,vertical,{header}\na.png,v,{fields}\n"))
    assert row.box_xyxy_px == box
    assert row.id == ("a.png" if box is None else f"a.png#{','.join(f'{side:g}' for side in box)}")


@pytest.mark.parametrize(
    ("header", "fields"), [("box", '"1,2,3"'), ("box", "left"), ("x0,y0,x1,y1", "1,2,3,"), ("box", "12")]
)
def test_bad_boxes(tmp_path, header, fields):
    problem = only_problem(csv_file(tmp_path, f"path,vertical,{header}\na.png,v,{fields}\n"))
    assert problem.kind == "bad box"
    assert problem.origin.endswith(":2")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("path,category", r"no column 'vertical'; is it 'category'\? Rename"),
        ("filename,vertical", r"no column 'path' .*is it 'filename'\?"),
        ("path,vertical,product_id", r"unknown column 'product_id'; did you mean 'product'\?"),
        ("path,vertical,x0,y0,x1", "y1 is missing"),
        ("path,vertical,split,split", "column 'split' is there more than once"),
        ("path,vertical,Item ID", r"no column 'product'; is it 'item id'\? Rename .* to leave the images unlabelled"),
        ("path,vertical,SKU-No", "no column 'product'; is it 'sku-no'"),
        ("path,vertical,product,subset", "no column 'split'; is it 'subset'"),
    ],
)
def test_missing_and_misspelt_columns_are_named_at_once(tmp_path, header, message):
    with pytest.raises(BadInputError, match=message):
        read_manifest(csv_file(tmp_path, header + "\n"))


@pytest.mark.parametrize("header", ["item", "label", "class", "ean", "barcode", "model_name", "ASIN", "product name"])
def test_other_words_for_the_product_are_asked_about(tmp_path, header):
    with pytest.raises(BadInputError, match="product"):
        read_manifest(csv_file(tmp_path, f"path,vertical,{header}\n"))
    assert list(read_manifest(csv_file(tmp_path, f"path,vertical,product,{header.replace('product', 'x')}\n"))) == []


@pytest.mark.parametrize(
    ("written", "image_id"),
    [
        ("im\\a.png", "im/a.png"),
        ("im/Gro\u0308\u00dfe.png", "im/Gr\u00f6\u00dfe.png"),
        ("im\\o\u0308\\\u00e9.png", "im/\u00f6/\u00e9.png"),
    ],
)
def test_a_path_in_another_spelling(tmp_path, written, image_id):
    write(tmp_path / image_id, png())
    row = only_row(csv_file(tmp_path, f"path,vertical\n{written},v\n"))
    assert (row.path, row.id) == (tmp_path / image_id, image_id)


def test_paths_from_another_place_are_answered_with_what_to_write(tmp_path):
    write(tmp_path / "im/1.png", png())
    for written in ("C:\\shop\\im\\1.png", "\\\\server\\shop\\im\\1.png", "/home/anna/shop/im/1.png", "D:/im/1.png"):
        problem = only_problem(csv_file(tmp_path, f"path,vertical\n{written},v\n"))
        assert (problem.kind, problem.fix) == ("missing file", "write im/1.png, which is there")
    assert "relative to the manifest" in only_problem(csv_file(tmp_path, "path,vertical\nC:\\2.png,v\n")).fix


def test_values_that_are_not_text(tmp_path):
    table = pa.table({"path": [b"a.png", b"b.png"], "vertical": [b"v", b"\xff"], "product": [Decimal("12.00"), None]})
    pq.write_table(table, tmp_path / "m.parquet")
    first, second = read_manifest(tmp_path / "m.parquet")
    assert (first.path, first.vertical, first.product) == (tmp_path / "a.png", "v", "12")
    assert second.kind == "name not UTF-8"
    lines = csv_file(tmp_path, '{"path": "a.png", "vertical": "v", "product": ["p"]}\n', "m.jsonl")
    assert only_problem(lines).detail == "product is ['p']"


def test_parquet(tmp_path):
    table = pa.table(
        {
            "Path": ["a.png", "b.png"],
            "vertical": ["v", "v"],
            "product": [12.0, None],
            "brand": [7, 8],
            "box": [[0.0, 1.0, 2.0, 3.0], None],
            "price": [1.0, 2.0],
        }
    )
    source = tmp_path / "m.parquet"
    pq.write_table(table, source)
    first, second = open_source(source)
    assert (first.product, first.brand, first.box_xyxy_px) == ("12", "7", (0.0, 1.0, 2.0, 3.0))
    assert (first.origin, first.path) == (f"{source}:row 1", tmp_path / "a.png")
    assert (second.product, second.box_xyxy_px) == (None, None)
    assert count_rows(source) == 2
    assert count_rows(csv_file(tmp_path, "path,vertical\n")) is None
