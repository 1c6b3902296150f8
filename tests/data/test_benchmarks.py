"""The readers of public benchmarks, on miniatures of what was published; and the validation split."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tests.data.pictures import jpeg, write
from univert.core.errors import BadInputError
from univert.data.readers import BENCHMARKS, count_rows, open_source, with_validation
from univert.data.readers.benchmarks import Size
from univert.data.rows import SourceProblem, SourceRow, SourceRows

SIZES = {
    "cub200": {"cub200 train": Size(images=3, products=2), "cub200 test": Size(images=2, products=1)},
    "cars196": {"cars196 train": Size(images=3, products=2), "cars196 test": Size(images=2, products=1)},
    "sop": {"sop train": Size(images=3, products=2), "sop test": Size(images=2, products=1)},
    "inshop": {
        "inshop train": Size(images=2, products=1),
        "inshop query": Size(images=2, products=2),
        "inshop gallery": Size(images=3, products=2),
    },
}
CUB_LINES = [
    "1 001.Black_footed_Albatross/Bird_1.jpg",
    "2 001.Black_footed_Albatross/Bird_2.jpg",
    "3 100.Brown_Pelican/Bird_3.jpg",
    "4 101.White_Pelican/Bird_4.jpg",
    "5 101.White_Pelican/Bird_5.jpg",
]
SOP_LINES = [
    "1 1 1 bicycle_final/111085122871_0.JPG",
    "2 1 1 bicycle_final/111085122871_1.JPG",
    "3 2 12 toaster_final/111265328556_0.JPG",
    "4 11319 4 coffee_maker_final/251952414262_0.JPG",
    "5 11319 4 coffee_maker_final/251952414262_1.JPG",
]
INSHOP_LINES = [
    "img/WOMEN/Dresses/id_00000002/02_1_front.jpg            id_00000002  train",
    "img/WOMEN/Dresses/id_00000002/02_2_side.jpg             id_00000002  train",
    "img/MEN/Denim/id_00000080/01_1_front.jpg                id_00000080  query",
    "img/MEN/Denim/id_00000080/01_7_additional.jpg           id_00000080  gallery",
    "img/WOMEN/Blouses_Shirts/id_00000001/02_1_front.jpg     id_00000001  query",
    "img/WOMEN/Blouses_Shirts/id_00000001/02_2_side.jpg      id_00000001  gallery",
    "img/WOMEN/Blouses_Shirts/id_00000001/02_4_full.jpg      id_00000001  gallery",
]
CARS = [f"Maker{number} Model 2012" for number in range(1, 197)]
CARS[0], CARS[97], CARS[98] = ("AM General Hummer SUV 2000", "Ford GT Coupe 2006", "Land Rover LR2 SUV 2012")


def read(name: str, root: Path, *, verify: bool = True) -> SourceRows:
    benchmark, reader = BENCHMARKS[name]
    return reader(root, verify=verify, benchmark=replace(benchmark, sizes=SIZES[name]))


def write_lines(path: Path, lines: list[str]) -> None:
    write(path, "".join(f"{line}\n" for line in lines).encode())


def write_pictures(root: Path, places: list[str]) -> None:
    for seed, place in enumerate(places):
        write(root / place, jpeg(seed))


def cub200(folder: Path) -> Path:
    root = folder / "CUB_200_2011"
    write_lines(root / "images.txt", CUB_LINES)
    write_lines(root / "image_class_labels.txt", ["1 1", "2 1", "3 100", "4 101", "5 101"])
    write_lines(
        root / "classes.txt", ["1 001.Black_footed_Albatross", "100 100.Brown_Pelican", "101 101.White_Pelican"]
    )
    # there, too, but of another protocol
    write_lines(root / "train_test_split.txt", [f"{image} {image % 2}" for image in range(1, 6)])
    write_pictures(root / "images", [line.split()[1] for line in CUB_LINES])
    return root


def sop(folder: Path) -> Path:
    root, header = folder / "Stanford_Online_Products", "image_id class_id super_class_id path"
    write_lines(root / "Ebay_train.txt", [header, *SOP_LINES[:3]])
    write_lines(root / "Ebay_test.txt", [header, *SOP_LINES[3:]])
    write_lines(root / "Ebay_info.txt", [header, *SOP_LINES])
    write_pictures(root, [line.split()[3] for line in SOP_LINES])
    return root


def inshop(folder: Path) -> Path:
    header = ["7", "image_name                                      item_id evaluation_status"]
    write_lines(folder / "Eval/list_eval_partition.txt", [*header, *INSHOP_LINES])
    write_pictures(folder / "Img", [line.split()[0] for line in INSHOP_LINES])
    return folder


def save_annotations(path: Path, column: str, images: dict[str, int], *, names: bool = False) -> None:
    """As MATLAB stores it: a 1 x N struct array of strings and numbers, and a 1 x N cell of names."""
    fields = [column, "bbox_x1", "class"] if names else ["bbox_x1", "class", column]
    table = np.empty((1, len(images)), dtype=[(field, object) for field in fields])
    for row, (place, number) in enumerate(images.items()):
        table["bbox_x1"][0, row], table["class"][0, row] = np.uint16(300), np.uint8(number)
        table[column][0, row] = place
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"annotations": table} | ({"class_names": np.array([CARS], dtype=object)} if names else {}))


def cars_in_one_folder(folder: Path) -> Path:
    root, images = folder / "cars", {f"car_ims/{n:06}.jpg": number for n, number in enumerate([1, 99, 98, 1, 99], 1)}
    save_annotations(root / "cars_annos.mat", "relative_im_path", images, names=True)
    write_pictures(root, list(images))
    return root


def cars_with_devkit(folder: Path) -> Path:
    root = folder / "stanford_cars"
    train, test = {"00001.jpg": 1, "00002.jpg": 99}, {"00001.jpg": 98, "00002.jpg": 1, "00003.jpg": 99}
    save_annotations(root / "devkit/cars_train_annos.mat", "fname", train)
    save_annotations(root / "devkit/cars_test_annos_withlabels.mat", "fname", test)
    savemat(root / "devkit/cars_meta.mat", {"class_names": np.array([CARS], dtype=object)})
    write_pictures(root / "cars_train", list(train))
    write_pictures(root / "cars_test", list(test))
    return root


@pytest.mark.parametrize(
    ("make", "name", "folder", "first", "others"),
    [
        (
            *(cub200, "cub200", "images"),
            SourceRow(
                origin="images.txt:1",
                id="001.Black_footed_Albatross/Bird_1.jpg",
                vertical="birds",
                product="001.Black_footed_Albatross",
                split="train",
                source="cub200 train",
            ),
            ["001.Black_footed_Albatross train", "100.Brown_Pelican train", *["101.White_Pelican test"] * 2],
        ),
        (
            *(sop, "sop", ""),
            SourceRow(
                origin="Ebay_train.txt:2",
                id="bicycle_final/111085122871_0.JPG",
                vertical="bicycle",
                product="1",
                split="train",
                source="sop train",
            ),
            ["1 train", "2 train", *["11319 test"] * 2],
        ),
        (
            *(inshop, "inshop", "Img"),
            SourceRow(
                origin="Eval/list_eval_partition.txt:3",
                id="img/WOMEN/Dresses/id_00000002/02_1_front.jpg",
                vertical="WOMEN/Dresses",
                product="id_00000002",
                split="train",
                source="inshop train",
            ),
            ["id_00000002 train", *["id_00000080 test"] * 2, *["id_00000001 test"] * 3],
        ),
        (
            *(cars_in_one_folder, "cars196", ""),
            SourceRow(
                origin="cars_annos.mat:row 1",
                id="car_ims/000001.jpg",
                vertical="cars",
                product=CARS[0],
                brand="AM General",
                split="train",
                source="cars196 train",
            ),
            [f"{CARS[98]} test", f"{CARS[97]} train", f"{CARS[0]} train", f"{CARS[98]} test"],
        ),
    ],
)
def test_the_published_layout(
    tmp_path: Path, make: Callable[[Path], Path], name: str, folder: str, first: SourceRow, others: list[str]
) -> None:
    root = make(tmp_path)
    rows = list(read(name, root))
    assert rows[0] == replace(first, origin=f"{root}/{first.origin}", path=root / folder / str(first.id))
    assert [f"{row.product} {row.split}" for row in rows[1:]] == others
    assert count_rows(root) == BENCHMARKS[name][0].images
    with pytest.raises(BadInputError, match=rf"{name} \w+ has \d images of \d products, expected [\d,]+ images of"):
        open_source(root)
    (root / folder / str(rows[1].id)).unlink()
    with pytest.raises(BadInputError, match=rf"missing images: 1 of {len(rows)} \({folder}.*{rows[1].id}"):
        read(name, root)


@pytest.mark.parametrize("name", ["cub200", "sop"])
def test_a_benchmark_is_found_in_the_folder_that_its_archive_was_unpacked_in(tmp_path: Path, name: str) -> None:
    root = {"cub200": cub200, "sop": sop}[name](tmp_path)
    assert list(read(name, root.parent)) == list(read(name, root))


def test_inshop_tells_queries_from_the_gallery(tmp_path: Path) -> None:
    rows = [(row.vertical, row.source) for row in read("inshop", inshop(tmp_path))]
    assert rows[2:5] == [
        ("MEN/Denim", "inshop query"),
        ("MEN/Denim", "inshop gallery"),
        ("WOMEN/Blouses_Shirts", "inshop query"),
    ]


def test_cars_with_devkit_are_split_by_class_whatever_the_folder(tmp_path: Path) -> None:
    root = cars_with_devkit(tmp_path)
    rows = list(read("cars196", root))
    assert [(row.id, row.brand, row.split) for row in rows] == [
        ("cars_train/00001.jpg", "AM General", "train"),
        ("cars_train/00002.jpg", "Land Rover", "test"),  # in the folder of classification's training images
        ("cars_test/00001.jpg", "Ford", "train"),
        ("cars_test/00002.jpg", "AM General", "train"),
        ("cars_test/00003.jpg", "Land Rover", "test"),
    ]
    # the labelled annotations were a file of their own
    (root / "devkit/cars_test_annos_withlabels.mat").rename(root / "cars_test_annos_withlabels.mat")
    assert [row.id for row in read("cars196", root.parent)] == [row.id for row in rows]


@pytest.mark.parametrize(
    ("make", "file", "number", "line", "detail"),
    [
        (cub200, "images.txt", 2, "7 001.Black_footed_Albatross/a.jpg", "image 7 has no class"),
        (cub200, "images.txt", 2, "2 100.Brown_Pelican/a.jpg", "not in the folder of its class 001"),
        (cub200, "classes.txt", 2, "one", "1 fields, expected 2"),
        (sop, "Ebay_train.txt", 4, "3 2 12", "3 fields, expected 4"),
        (sop, "Ebay_train.txt", 4, "3 2 13 toaster_final/a.JPG", "class '2' of super class '13'"),
        (sop, "Ebay_train.txt", 4, "3 x 12 toaster_final/a.JPG", "class 'x' of super class '12'"),
        (sop, "Ebay_train.txt", 4, "3 2 11 toaster_final/a.JPG", "not in the folder of its super class table"),
        (inshop, "Eval/list_eval_partition.txt", 9, "img/MEN/Denim/id_80/a.jpg id_80", "2 fields, expected 3"),
        (inshop, "Eval/list_eval_partition.txt", 9, "img/MEN/Denim/id_80/a.jpg id_80 val", "status 'val' is none of"),
        (inshop, "Eval/list_eval_partition.txt", 9, "img/a.jpg id_80 query", "img/a.jpg is not img/MEN or WOMEN/"),
    ],
)
def test_broken_lines(
    tmp_path: Path, make: Callable[[Path], Path], file: str, number: int, line: str, detail: str
) -> None:
    root, name = make(tmp_path), make.__name__
    lines = (root / file).read_text().splitlines()
    write_lines(root / file, [*lines[: number - 1], line, *lines[number:]])
    with pytest.raises(BadInputError, match=rf"unusable lines in its annotations: \d+ .*{detail}.*verify=False"):
        read(name, root)
    problem = next(row for row in read(name, root, verify=False) if isinstance(row, SourceProblem))
    assert detail in problem.detail
    assert problem.origin.endswith(f"{file}:{number}")


def test_annotations_of_cars_that_cannot_be_used(tmp_path: Path) -> None:
    root, devkit = cars_in_one_folder(tmp_path), cars_with_devkit(tmp_path)
    images = {"car_ims/000001.jpg": 1, "car_ims/000002.jpg": 197, "": 3}
    save_annotations(root / "cars_annos.mat", "relative_im_path", images, names=True)
    rows = list(read("cars196", root, verify=False))
    assert [type(row) for row in rows] == [SourceRow, SourceProblem, SourceProblem]
    assert rows[1].detail == "image 'car_ims/000002.jpg' of class 197, of 196 classes"
    with pytest.raises(BadInputError, match="unusable lines in its annotations: 2"):
        read("cars196", root)
    savemat(devkit / "devkit/cars_train_annos.mat", {"annotations": np.zeros((1, 2), dtype=[("fname", "O")])})
    with pytest.raises(BadInputError, match=r"no field 'fname' or no 'class'; restore the published file"):
        list(read("cars196", devkit, verify=False))
    (root / "cars_annos.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    with pytest.raises(BadInputError, match=r"cars_annos\.mat: not a MATLAB file with 'class_names'"):
        read("cars196", root)


def of_products(products=1000, images=2, split="train", vertical="cars"):
    for product in range(products):
        for image in range(images):
            yield SourceRow(origin=f"{product}/{image}", vertical=vertical, product=f"p{product}", split=split)


def test_validation_takes_whole_products_from_train_alone():
    before = [*of_products(), *of_products(50, split="test", vertical="birds")]
    after = list(with_validation(before, share=0.2, seed=3))
    splits = {row.product: row.split for row in after if row.vertical == "cars"}
    counts = Counter(splits.values())
    assert all(row.split == splits[row.product] for row in after if row.vertical == "cars")
    assert counts["val"] / 1000 == pytest.approx(0.2, abs=0.03)
    assert counts["train"] + counts["val"] == 1000
    assert {row.split for row in after if row.vertical == "birds"} == {"test"}
    assert [replace(row, split=None) for row in after] == [replace(row, split=None) for row in before]


def test_validation_depends_on_names_and_seed_alone():
    taken = {row.product for row in with_validation(of_products()) if row.split == "val"}
    backwards = {row.product for row in with_validation(reversed(list(of_products()))) if row.split == "val"}
    other = {row.product for row in with_validation(of_products(), seed=1) if row.split == "val"}
    assert taken == backwards != other
    # a known value: a change would move products of catalogues that people build again
    assert sorted(taken)[:5] == ["p118", "p13", "p147", "p152", "p16"]
