from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.pictures import jpeg, write
from univert.core.errors import BadInputError
from univert.data.readers import open_source
from univert.data.readers.benchmarks import Size
from univert.data.readers.inshop import GALLERY, INSHOP, QUERY, read_inshop
from univert.data.rows import SourceProblem, SourceRow

HEADER = "image_name                                      item_id evaluation_status"
LINES = [
    "img/WOMEN/Dresses/id_00000002/02_1_front.jpg            id_00000002  train",
    "img/WOMEN/Dresses/id_00000002/02_2_side.jpg             id_00000002  train",
    "img/MEN/Denim/id_00000080/01_1_front.jpg                id_00000080  query",
    "img/MEN/Denim/id_00000080/01_7_additional.jpg           id_00000080  gallery",
    "img/WOMEN/Blouses_Shirts/id_00000001/02_1_front.jpg     id_00000001  query",
    "img/WOMEN/Blouses_Shirts/id_00000001/02_2_side.jpg      id_00000001  gallery",
    "img/WOMEN/Blouses_Shirts/id_00000001/02_4_full.jpg      id_00000001  gallery",
]
MINIATURE = replace(
    INSHOP,
    sizes={
        "inshop train": Size(images=2, products=1),
        QUERY: Size(images=2, products=2),
        GALLERY: Size(images=3, products=2),
    },
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_list(tmp_path, LINES)
    for seed, line in enumerate(LINES):
        write(tmp_path / "Img" / line.split()[0], jpeg(seed))
    return tmp_path


def write_list(root: Path, lines: list[str], header: str = HEADER) -> None:
    text = "\n".join([str(len(lines)), header, *lines, ""])
    write(root / "Eval/list_eval_partition.txt", text.encode())


def test_the_published_layout(root):
    rows = list(read_inshop(root, benchmark=MINIATURE))
    assert rows[0] == SourceRow(
        origin=f"{root}/Eval/list_eval_partition.txt:3",
        id="img/WOMEN/Dresses/id_00000002/02_1_front.jpg",
        path=root / "Img/img/WOMEN/Dresses/id_00000002/02_1_front.jpg",
        vertical="WOMEN/Dresses",
        product="id_00000002",
        split="train",
        source="inshop train",
    )
    assert [(row.vertical, row.product, row.split, row.source) for row in rows[2:5]] == [
        ("MEN/Denim", "id_00000080", "test", QUERY),
        ("MEN/Denim", "id_00000080", "test", GALLERY),
        ("WOMEN/Blouses_Shirts", "id_00000001", "test", QUERY),
    ]


def test_a_source_is_recognised_and_verified(root):
    with pytest.raises(BadInputError, match="inshop query has 2 images of 2 products, expected 14,218 images of 3,985"):
        open_source(root)
    (root / "Img/img/MEN/Denim/id_00000080/01_1_front.jpg").unlink()
    with pytest.raises(BadInputError, match=r"missing images: 1 of 7 \(Img/img/MEN/Denim/id_00000080/01_1_"):
        read_inshop(root, benchmark=MINIATURE)


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ("img/MEN/Denim/id_00000080/a.jpg id_00000080", "2 fields, expected 3"),
        ("img/MEN/Denim/id_00000080/a.jpg id_00000080 val", "evaluation_status 'val' is none of train, query"),
        ("img/a.jpg id_00000080 query", "img/a.jpg is not img/MEN or WOMEN/CATEGORY"),
    ],
)
def test_broken_lines(root, line, detail):
    write_list(root, [*LINES, line])
    with pytest.raises(BadInputError, match=rf"unusable lines in its annotations: 1 .*\.txt:10.*{detail}"):
        read_inshop(root, benchmark=MINIATURE)
    problem = list(read_inshop(root, verify=False))[-1]
    assert isinstance(problem, SourceProblem)
    assert detail in problem.detail
