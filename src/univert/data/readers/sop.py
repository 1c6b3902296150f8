"""Stanford Online Products as a source: 22,634 products of 12 verticals; one half trains, the other tests."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from univert.data.readers.benchmarks import Benchmark, Size, bad_line, read_lines
from univert.data.rows import SourceProblem, SourceRow, SourceRows

SOP = Benchmark(
    name="sop",
    title="Stanford Online Products",
    page="https://cvgl.stanford.edu/projects/lifted_struct/",
    folder="Stanford_Online_Products",
    layout="Ebay_train.txt, Ebay_test.txt, bicycle_final/, cabinet_final/ ... (Stanford_Online_Products.zip)",
    markers=("Ebay_train.txt", "Ebay_test.txt"),
    sizes={"sop train": Size(images=59_551, products=11_318), "sop test": Size(images=60_502, products=11_316)},
)
_NAMES = "bicycle cabinet chair coffee_maker fan kettle lamp mug sofa stapler table toaster"
_VERTICALS: Final = {str(number): name for number, name in enumerate(_NAMES.split(), start=1)}
"""The super classes by number; their images lie in `NAME_final/`."""


def read_sop(root: Path | str, *, verify: bool = True, benchmark: Benchmark = SOP) -> SourceRows:
    """Read Stanford Online Products (Song et al., 2016), in the order of its lists, training first.

    The verticals are the 12 super classes; the product is the number of the class.

    `root` is `Stanford_Online_Products/`, or the folder it lies in; for the rest see `open_dataset`.
    """
    root = benchmark.find(root)
    lists = {split: benchmark.file(root, f"Ebay_{split}.txt") for split in ("train", "test")}
    return benchmark.read(root, lambda: _rows(root, lists), verify=verify)


def _rows(root: Path, lists: dict[str, Path]) -> SourceRows:
    for split, path in lists.items():
        for line in read_lines(path, fields=4, header=1):
            if isinstance(line, SourceProblem):
                yield line
                continue
            origin, (_, product, number, place) = line
            vertical = _VERTICALS.get(number)
            if vertical is None or not product.isdigit():
                yield bad_line(origin, f"class {product!r} of super class {number!r}")
            elif place.split("/")[0] != f"{vertical}_final":
                yield bad_line(origin, f"{place} is not in the folder of its super class {vertical}")
            else:
                yield SourceRow(
                    origin=origin,
                    id=place,
                    path=root / place,
                    vertical=vertical,
                    product=product,
                    split=split,
                    source=f"sop {split}",
                )
