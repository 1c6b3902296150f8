"""DeepFashion In-shop Clothes Retrieval as a source: 7,982 items of clothing; queries and gallery to test."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from univert.core.errors import BadInputError
from univert.data.readers.benchmarks import Benchmark, Size, bad_line, read_lines
from univert.data.rows import SourceProblem, SourceRow, SourceRows

QUERY: Final = "inshop query"
"""The `source` of a test image that searches."""

_TRAIN: Final = "inshop train"
_LIST: Final = "Eval/list_eval_partition.txt"
_HEADER: Final = ["image_name", "item_id", "evaluation_status"]
_GALLERY: Final = "inshop gallery"
_PARTS: Final = {"train": _TRAIN, "query": QUERY, "gallery": _GALLERY}

INSHOP = Benchmark(
    name="inshop",
    title="DeepFashion In-shop",
    page="https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html",
    folder="In-shop Clothes Retrieval Benchmark",
    layout=f"{_LIST} and Img/img/ (img.zip)",
    markers=(_LIST,),
    sizes={
        _TRAIN: Size(images=25_882, products=3_997),
        QUERY: Size(images=14_218, products=3_985),
        _GALLERY: Size(images=12_612, products=3_985),
    },
)


def read_inshop(root: Path | str, *, verify: bool = True, benchmark: Benchmark = INSHOP) -> SourceRows:
    """Read DeepFashion's In-shop benchmark (Liu et al., 2016), in the order of its list.

    The product is the item's id, the vertical its place in the shop (`MEN/Denim`); an item listed in two
    places stays in its first. Queries and gallery are both in the split `test`; `source` tells them apart:
    that of those that search is `QUERY`.

    `root` is the folder with `Eval/` and `Img/`; for the rest see `open_dataset`.
    """
    root = benchmark.find(root)
    path = benchmark.file(root, _LIST)
    with path.open(encoding="utf-8", errors="replace") as file:
        file.readline()  # how many images there are
        header = file.readline().split()
    if header != _HEADER:
        raise BadInputError(
            f"{path}: line 2 must be {' '.join(_HEADER)!r}, got {' '.join(header)!r}; "
            "is it another of DeepFashion's benchmarks? In-shop Clothes Retrieval is needed"
        )
    return benchmark.read(root, lambda: _rows(root, path), verify=verify)


def _rows(root: Path, path: Path) -> SourceRows:
    verticals: dict[str, str] = {}  # of the items so far
    for line in read_lines(path, fields=3, header=2):
        if isinstance(line, SourceProblem):
            yield line
            continue
        origin, (place, item, status) = line
        folders = place.split("/")
        if status not in _PARTS:
            yield bad_line(origin, f"evaluation_status {status!r} is none of {', '.join(_PARTS)}")
        elif len(folders) < 4:
            yield bad_line(origin, f"{place} is not img/MEN or WOMEN/CATEGORY/...")
        else:
            yield SourceRow(
                origin=origin,
                id=place,
                path=root / "Img" / place,
                vertical=verticals.setdefault(item, "/".join(folders[1:3])),
                product=item,
                split="train" if status == "train" else "test",
                source=_PARTS[status],
            )
