"""Cars196 (Stanford Cars) as a source: 196 models of cars; the first 98 train, the others test."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from univert.core.errors import BadInputError
from univert.data.readers.benchmarks import Benchmark, Size, bad_line
from univert.data.rows import SourceRow, SourceRows

CARS196 = Benchmark(
    name="cars196",
    title="Cars196",
    page="https://ai.stanford.edu/~jkrause/cars/car_dataset.html (or from a mirror: the archives there are gone)",
    folder="stanford_cars",
    layout=(
        "cars_annos.mat and car_ims/ (car_ims.tgz), or with devkit/ (cars_meta.mat, cars_train_annos.mat), "
        "cars_test_annos_withlabels.mat, cars_train/ and cars_test/"
    ),
    markers=("cars_annos.mat", "devkit/cars_train_annos.mat", "devkit/cars_meta.mat"),
    sizes={"cars196 train": Size(images=8_054, products=98), "cars196 test": Size(images=8_131, products=98)},
)
_TRAIN_CLASSES = 98
_TWO_WORD_MAKERS = ("AM General", "Aston Martin", "Land Rover")


def read_cars196(root: Path | str, *, verify: bool = True, benchmark: Benchmark = CARS196) -> SourceRows:
    """Read Cars196 (Krause et al., 2013), whole images, in the order of the annotations.

    Both published layouts are known; `cars_annos.mat` goes first where both are there. The split is the
    zero-shot one of metric learning: classes 1 to 98 train, 99 to 196 test, whichever folder an image is in.
    The product is the class's name, the brand its maker. Boxes are not read, as the protocol takes whole
    images.

    `root` is the folder with `cars_annos.mat` or `devkit/`; for the rest see `open_dataset`.
    """
    root = benchmark.find(root)
    if (root / "cars_annos.mat").is_file():
        annotations = {"": root / "cars_annos.mat"}
        names = root / "cars_annos.mat"
    else:
        names = benchmark.file(root, "devkit/cars_meta.mat")
        labelled = "cars_test_annos_withlabels.mat"  # cars_test_annos.mat has no classes
        annotations = {
            "cars_train": benchmark.file(root, "devkit/cars_train_annos.mat"),
            "cars_test": benchmark.file(root, f"devkit/{labelled}", labelled),
        }
    return benchmark.read(root, lambda: _rows(root, names, annotations), verify=verify)


def maker(name: str) -> str:
    """The maker in a class's name.

    Example:
        >>> maker("Aston Martin Virage Coupe 2012"), maker("smart fortwo Convertible 2012")
        ('Aston Martin', 'smart')
    """
    return next((two for two in _TWO_WORD_MAKERS if name.startswith(two + " ")), name.split()[0])


def _rows(root: Path, meta: Path, annotations: dict[str, Path]) -> SourceRows:
    names = [str(name).strip() for name in _variable(meta, "class_names")]
    for folder, file in annotations.items():
        table = _variable(file, "annotations")
        fields = table.dtype.names or ()
        column = "relative_im_path" if "relative_im_path" in fields else "fname"
        if not {column, "class"} <= set(fields):
            raise BadInputError(
                f"{file}: its annotations have no field {column!r} or no 'class'; restore the published file"
            )
        for row, (place, number) in enumerate(zip(table[column], table["class"], strict=True), start=1):
            origin = f"{file}:row {row}"
            if not (isinstance(place, str) and place and np.ndim(number) == 0 and 1 <= number <= len(names)):
                yield bad_line(origin, f"image {place!r} of class {number}, of {len(names)} classes")
                continue
            image_id = str(PurePosixPath(folder, place))
            split = "train" if number <= _TRAIN_CLASSES else "test"
            name = names[int(number) - 1]
            yield SourceRow(
                origin=origin,
                id=image_id,
                path=root / image_id,
                vertical="cars",
                product=name,
                brand=maker(name),
                split=split,
                source=f"cars196 {split}",
            )


def _variable(path: Path, name: str) -> Any:
    """One variable of a MATLAB file as a one-dimensional array; such files hold data, never code."""
    from scipy.io import loadmat

    try:
        return np.atleast_1d(loadmat(path, squeeze_me=True, variable_names=[name])[name])
    except Exception as error:
        raise BadInputError(f"{path}: not a MATLAB file with {name!r} ({error}); restore the published file") from error
