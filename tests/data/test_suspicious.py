import pyarrow as pa
import pytest

from univert.data.suspicious import SUSPECT_COLUMNS, suspicious


def said(**columns: list[str | None]) -> list[str]:
    """What is said of a table whose other columns nothing is wrong with."""
    count = len(next(iter(columns.values())))
    values = {name: [None] * count for name in SUSPECT_COLUMNS}
    values |= {"id": [f"i{n}" for n in range(count)], "product": [f"p{n // 2}" for n in range(count)]}
    values |= {"vertical": ["shoes"] * count, "split": ["train"] * count, "digest": [f"{n}" for n in range(count)]}
    return suspicious(pa.table({name: pa.array(v, pa.string()) for name, v in (values | columns).items()}))


@pytest.mark.parametrize(
    ("names", "what"),
    [
        ("nan NaN None null N/A n.a. #N/A #REF! - ?? <NA> -1 unknown", "stand for a missing value"),
        ("4.00638E+12 4,00638e+12 1.20E-05 123456789012345000", "are numbers that a spreadsheet has rounded"),
        ("TRUE False WAHR", "are what a spreadsheet makes of yes and no"),
        ("123.0 7,00", "are whole numbers with decimals"),
        ("03-Apr 3-Apr-2024 Mar-04 3/4/2024 03.04.2024", "are dates, which spreadsheets make of codes"),
        ("b'abc' ['a'] 'quoted'", "are written as in a program"),
        ("Caf\u00c3\u00a9 Gr\u00c3\u00b6\u00c3\u0178e caf\ufffd", "were read in the wrong encoding"),
    ],
)
def test_names_that_can_hardly_be_meant(names, what):
    wrong = names.split(" ")
    for column in ("product", "brand"):
        (line,) = said(**{column: [*wrong, wrong[0], "fine"]})
        assert line.startswith(f"names of {column} that {what}: {wrong[0]!r}")
        assert f"on {len(wrong) + 1} images; " in line


@pytest.mark.parametrize(
    "names",
    [
        ["Shoes", "shoes", "SHOES"],
        ["a b", "a  b", "a\u00a0b"],
        ["o\u2019neill", "o'neill"],
        ["a-1", "a\u20131"],
        ["x", "x\u200b"],
        ["\ufb01t", "fit"],
    ],
)
def test_names_that_look_alike(names):
    (line,) = said(vertical=names)
    assert line.startswith("names of vertical that differ in letter case, spaces or the form of characters alone: ")
    assert all(repr(name) in line for name in names)


def test_ordinary_names_pass():
    names = ["12E45", "1E3", "4006381333931", "Caf\u00e9", "\u5c71", "naan", "none-such", "A&W", "3.5", "O'Neill's"]
    names += ["3E-05", "true blue", "[red]", "nancy", "2024-03-04"]
    assert said(product=names, brand=names, style=names, vertical=names) == []


def test_a_catch_all_product_and_no_product_at_all():
    (line,) = said(product=["misc"] * 10 + ["a", "a", "b", "b", "c", "c", "d", "d"], vertical=["shoes"] * 18)
    assert line.startswith("one product, 'misc', has 56% of the labelled images of shoes; ")
    (line,) = said(product=[None, None])
    assert line.startswith("no image has a product")


def test_one_picture_under_several_products_and_across_splits():
    same = ["x", "x", "y", "y", "x"]
    assert said(digest=same, product=["a", "b", "c", "c", None]) == [
        "the same picture, byte for byte, under several products: 1 such (i0 in 'a', i1 in 'b'); "
        "give it one product, or none"
    ]
    (line,) = said(digest=same, product=["a", "a", "c", "c", None], split=["train", "test", "val", "val", None])
    assert line.startswith("the same picture, byte for byte, in several splits: 1 such (i1 in 'test', i0 in 'train'); ")
