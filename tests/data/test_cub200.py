from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.pictures import jpeg, write
from univert.core.errors import BadInputError
from univert.data.readers import count_rows
from univert.data.readers.benchmarks import Size
from univert.data.readers.cub200 import CUB200, read_cub200
from univert.data.rows import SourceProblem, SourceRow

MINIATURE = replace(
    CUB200, sizes={"cub200 train": Size(images=3, products=2), "cub200 test": Size(images=2, products=1)}
)
SPECIES = {1: "001.Black_footed_Albatross", 100: "100.Brown_Pelican", 101: "101.White_Pelican"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "CUB_200_2011"
    classes = [1, 1, 100, 101, 101]
    places = [f"{SPECIES[number]}/Bird_{image:04}_{number}.jpg" for image, number in enumerate(classes, 1)]
    for seed, place in enumerate(places):
        write(root / "images" / place, jpeg(seed))
    write_lines(root / "images.txt", [f"{image} {place}" for image, place in enumerate(places, 1)])
    write_lines(root / "image_class_labels.txt", [f"{image} {number}" for image, number in enumerate(classes, 1)])
    write_lines(root / "classes.txt", [f"{number} {name}" for number, name in SPECIES.items()])
    # there, too, but of another protocol
    write_lines(root / "train_test_split.txt", [f"{image} {image % 2}" for image in range(1, 6)])
    write_lines(root / "bounding_boxes.txt", [f"{image} 1.0 2.0 3.0 4.0" for image in range(1, 6)])
    return root


def write_lines(path: Path, lines: list[str]) -> None:
    write(path, "".join(f"{line}\n" for line in lines).encode())


def replace_line(path: Path, number: int, line: str) -> None:
    lines = path.read_text().splitlines()
    write_lines(path, [*lines[: number - 1], line, *lines[number:]])


def test_the_published_layout(root):
    rows = list(read_cub200(root, benchmark=MINIATURE))
    assert rows[0] == SourceRow(
        origin=f"{root}/images.txt:1",
        id="001.Black_footed_Albatross/Bird_0001_1.jpg",
        path=root / "images/001.Black_footed_Albatross/Bird_0001_1.jpg",
        vertical="birds",
        product="001.Black_footed_Albatross",
        split="train",
        source="cub200 train",
    )
    assert [(row.product, row.split) for row in rows[1:]] == [
        (SPECIES[1], "train"),
        (SPECIES[100], "train"),
        (SPECIES[101], "test"),
        (SPECIES[101], "test"),
    ]
    # from the folder that the archive was unpacked in
    assert list(read_cub200(root.parent, benchmark=MINIATURE)) == rows
    assert count_rows(root) == 11_788


@pytest.mark.parametrize(
    ("file", "line", "detail"),
    [
        ("images.txt", "7 001.Black_footed_Albatross/a.jpg", "image 7 has no class"),
        ("images.txt", "2 100.Brown_Pelican/a.jpg", "not in the folder of its class 001"),
        ("classes.txt", "one", "1 fields, expected 2"),
    ],
)
def test_broken_lines(root, file, line, detail):
    replace_line(root / file, 2, line)
    with pytest.raises(BadInputError, match=rf"unusable lines in its annotations: \d+ .*{detail}.*verify=False"):
        read_cub200(root, benchmark=MINIATURE)
    problems = [row for row in read_cub200(root, verify=False) if isinstance(row, SourceProblem)]
    assert detail in problems[0].detail
    assert problems[0].origin.endswith(".txt:2")
