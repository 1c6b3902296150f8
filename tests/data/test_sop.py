from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.pictures import jpeg, write
from univert.core.errors import BadInputError
from univert.data.readers import count_rows, open_source
from univert.data.readers.benchmarks import Size
from univert.data.readers.sop import SOP, read_sop
from univert.data.rows import SourceProblem, SourceRow

HEADER = "image_id class_id super_class_id path"
TRAIN = [
    "1 1 1 bicycle_final/111085122871_0.JPG",
    "2 1 1 bicycle_final/111085122871_1.JPG",
    "3 2 12 toaster_final/111265328556_0.JPG",
]
TEST = ["4 11319 4 coffee_maker_final/251952414262_0.JPG", "5 11319 4 coffee_maker_final/251952414262_1.JPG"]
MINIATURE = replace(SOP, sizes={"sop train": Size(images=3, products=2), "sop test": Size(images=2, products=1)})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "Stanford_Online_Products"
    for name, lines in (("Ebay_train.txt", TRAIN), ("Ebay_test.txt", TEST)):
        write(root / name, "\n".join([HEADER, *lines]).encode())
        for seed, line in enumerate(lines):
            write(root / line.split()[3], jpeg(seed))
    write(root / "Ebay_info.txt", "\n".join([HEADER, *TRAIN, *TEST]).encode())
    return root


def test_the_published_layout(root):
    rows = list(read_sop(root, benchmark=MINIATURE))
    assert rows[0] == SourceRow(
        origin=f"{root}/Ebay_train.txt:2",
        id="bicycle_final/111085122871_0.JPG",
        path=root / "bicycle_final/111085122871_0.JPG",
        vertical="bicycle",
        product="1",
        split="train",
        source="sop train",
    )
    assert [(row.vertical, row.product, row.split) for row in rows[2:]] == [
        ("toaster", "2", "train"),
        ("coffee_maker", "11319", "test"),
        ("coffee_maker", "11319", "test"),
    ]
    assert list(read_sop(root.parent, benchmark=MINIATURE)) == rows
    assert count_rows(root) == 120_053


def test_a_source_is_recognised_and_verified(root):
    message = "sop test has 2 images of 1 products, expected 60,502 images of 11,316 products; sop train has"
    with pytest.raises(BadInputError, match=message):
        open_source(root)


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ("3 2 12", "3 fields, expected 4"),
        ("3 2 13 toaster_final/a.JPG", "class '2' of super class '13'"),
        ("3 x 12 toaster_final/a.JPG", "class 'x' of super class '12'"),
        ("3 2 11 toaster_final/a.JPG", "not in the folder of its super class table"),
    ],
)
def test_broken_lines(root, line, detail):
    write(root / "Ebay_train.txt", "\n".join([HEADER, *TRAIN[:2], line]).encode())
    with pytest.raises(BadInputError, match="unusable lines in its annotations: 1"):
        read_sop(root, benchmark=MINIATURE)
    rows = list(read_sop(root, verify=False))
    assert isinstance(rows[2], SourceProblem)
    assert rows[2].origin.endswith("Ebay_train.txt:4")
    assert detail in rows[2].detail
    assert len(rows) == 5
