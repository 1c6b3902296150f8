"""CUB-200-2011 as a source: 200 species of birds; the first 100 train, the others test."""

from __future__ import annotations

from pathlib import Path

from univert.data.readers.benchmarks import Benchmark, Size, bad_line, read_lines
from univert.data.rows import SourceProblem, SourceRow, SourceRows

CUB200 = Benchmark(
    name="cub200",
    title="CUB-200-2011",
    page="https://www.vision.caltech.edu/datasets/cub_200_2011/",
    folder="CUB_200_2011",
    layout="images.txt, image_class_labels.txt, classes.txt and images/ (CUB_200_2011.tgz)",
    markers=("image_class_labels.txt", "images.txt"),
    sizes={"cub200 train": Size(images=5_864, products=100), "cub200 test": Size(images=5_924, products=100)},
)
_TRAIN_CLASSES = 100


def read_cub200(root: Path | str, *, verify: bool = True, benchmark: Benchmark = CUB200) -> SourceRows:
    """Read CUB-200-2011 (Wah et al., 2011), whole images, in the order of `images.txt`.

    The split is the zero-shot one of metric learning: classes 1 to 100 train, 101 to 200 test.
    `train_test_split.txt` is that of classification and is not read; neither are the boxes, as the protocol
    takes whole images.

    `root` is `CUB_200_2011/`, or the folder it lies in; for the rest see `open_dataset`.
    """
    root = benchmark.find(root)
    for name in ("images.txt", "image_class_labels.txt", "classes.txt"):
        benchmark.file(root, name)
    return benchmark.read(root, lambda: _rows(root), verify=verify)


def _rows(root: Path) -> SourceRows:
    names: dict[str, str] = {}  # class -> name
    classes: dict[str, str] = {}  # image -> class
    for file, column in (("classes.txt", names), ("image_class_labels.txt", classes)):
        for line in read_lines(root / file, fields=2):
            if isinstance(line, SourceProblem):
                yield line
            else:
                column[line[1][0]] = line[1][1]
    for line in read_lines(root / "images.txt", fields=2):
        if isinstance(line, SourceProblem):
            yield line
            continue
        origin, (image, place) = line
        number = classes.get(image)
        name = names.get(number or "")
        if number is None or name is None or not number.isdigit():
            yield bad_line(origin, f"image {image} has no class in image_class_labels.txt and classes.txt")
        elif place.split("/")[0] != name:
            yield bad_line(origin, f"{place} is not in the folder of its class {name}")
        else:
            split = "train" if int(number) <= _TRAIN_CLASSES else "test"
            yield SourceRow(
                origin=origin,
                id=place,
                path=root / "images" / place,
                vertical="birds",
                product=name,
                split=split,
                source=f"cub200 {split}",
            )
