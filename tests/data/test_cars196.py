from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tests.data.pictures import jpeg, write
from univert.core.errors import BadInputError
from univert.data.readers.benchmarks import Size
from univert.data.readers.cars196 import CARS196, read_cars196
from univert.data.rows import SourceProblem, SourceRow

NAMES = [f"Maker{number} Model 2012" for number in range(1, 197)]
NAMES[0], NAMES[97], NAMES[98] = ("AM General Hummer SUV 2000", "Ford GT Coupe 2006", "Land Rover LR2 SUV 2012")
MINIATURE = replace(
    CARS196, sizes={"cars196 train": Size(images=3, products=2), "cars196 test": Size(images=2, products=1)}
)


def save_annotations(path: Path, column: str, images: dict[str, int], names: list[str] | None = None) -> None:
    """As MATLAB stores it: a 1 x N struct array of strings and numbers, and a 1 x N cell of names."""
    boxes = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    fields = [column, *boxes, "class"] if names else [*boxes, "class", column]
    table = np.empty((1, len(images)), dtype=[(field, object) for field in fields])
    for row, (place, number) in enumerate(images.items()):
        for box in boxes:
            table[box][0, row] = np.uint16(300)
        table["class"][0, row] = np.uint8(number)
        table[column][0, row] = place
    content = {"annotations": table}
    if names:
        content["class_names"] = cell(names)
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, content)


def cell(names: list[str]) -> np.ndarray:
    values = np.empty((1, len(names)), dtype=object)
    values[0, :] = names
    return values


@pytest.fixture
def one_folder(tmp_path: Path) -> Path:
    root = tmp_path / "cars"
    classes = [1, 99, 98, 1, 99]
    images = {f"car_ims/{image:06}.jpg": number for image, number in enumerate(classes, 1)}
    save_annotations(root / "cars_annos.mat", "relative_im_path", images, NAMES)
    for seed, place in enumerate(images):
        write(root / place, jpeg(seed))
    return root


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    root = tmp_path / "stanford_cars"
    train, test = {"00001.jpg": 1, "00002.jpg": 99}, {"00001.jpg": 98, "00002.jpg": 1, "00003.jpg": 99}
    save_annotations(root / "devkit/cars_train_annos.mat", "fname", train)
    save_annotations(root / "devkit/cars_test_annos_withlabels.mat", "fname", test)
    savemat(root / "devkit/cars_meta.mat", {"class_names": cell(NAMES)})
    for folder, images in (("cars_train", train), ("cars_test", test)):
        for seed, name in enumerate(images):
            write(root / folder / name, jpeg(seed))
    return root


def test_the_layout_with_one_folder(one_folder):
    rows = list(read_cars196(one_folder, benchmark=MINIATURE))
    assert rows[0] == SourceRow(
        origin=f"{one_folder}/cars_annos.mat:row 1",
        id="car_ims/000001.jpg",
        path=one_folder / "car_ims/000001.jpg",
        vertical="cars",
        product="AM General Hummer SUV 2000",
        brand="AM General",
        split="train",
        source="cars196 train",
    )
    assert [(row.brand, row.split) for row in rows[1:]] == [
        ("Land Rover", "test"),
        ("Ford", "train"),
        ("AM General", "train"),
        ("Land Rover", "test"),
    ]


def test_the_layout_with_devkit(devkit):
    rows = list(read_cars196(devkit, benchmark=MINIATURE))
    assert [(row.id, row.product, row.split) for row in rows] == [
        ("cars_train/00001.jpg", NAMES[0], "train"),
        ("cars_train/00002.jpg", NAMES[98], "test"),  # in the folder of classification's training images
        ("cars_test/00001.jpg", NAMES[97], "train"),
        ("cars_test/00002.jpg", NAMES[0], "train"),
        ("cars_test/00003.jpg", NAMES[98], "test"),
    ]
    # the labelled annotations were a file of their own
    (devkit / "devkit/cars_test_annos_withlabels.mat").rename(devkit / "cars_test_annos_withlabels.mat")
    assert [row.id for row in read_cars196(devkit.parent, benchmark=MINIATURE)] == [row.id for row in rows]


def test_annotations_that_cannot_be_used(one_folder, devkit):
    save_annotations(
        one_folder / "cars_annos.mat",
        "relative_im_path",
        {"car_ims/000001.jpg": 1, "car_ims/000002.jpg": 197, "": 3},
        NAMES,
    )
    rows = list(read_cars196(one_folder, verify=False))
    assert [type(row) for row in rows] == [SourceRow, SourceProblem, SourceProblem]
    assert rows[1].detail == "image 'car_ims/000002.jpg' of class 197, of 196 classes"
    with pytest.raises(BadInputError, match="unusable lines in its annotations: 2"):
        read_cars196(one_folder, benchmark=MINIATURE)
    savemat(devkit / "devkit/cars_train_annos.mat", {"annotations": np.zeros((1, 2), dtype=[("fname", "O")])})
    with pytest.raises(BadInputError, match=r"no field 'fname' or no 'class'; restore the published file"):
        list(read_cars196(devkit, verify=False))


def test_a_file_that_is_no_matlab_file(one_folder):
    (one_folder / "cars_annos.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(BadInputError, match=r"cars_annos\.mat: not a MATLAB file with 'class_names'"):
        read_cars196(one_folder, benchmark=MINIATURE)
