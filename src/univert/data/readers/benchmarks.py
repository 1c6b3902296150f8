"""What the readers of public benchmarks share: what a benchmark must hold, and the check that it is all there."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from univert.core.errors import BadInputError
from univert.data.rows import SourceProblem, SourceRow, SourceRows

_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much one part of a benchmark holds."""

    images: int
    products: int

    def __str__(self) -> str:
        return f"{self.images:,} images of {self.products:,} products"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A public benchmark as its authors published it.

    Attributes:
        title: its name in messages.
        page: where to get it.
        folder: the folder its archive unpacks into.
        layout: what that folder must hold, in words.
        markers: files by any of which a folder is recognised as this benchmark.
        sizes: each part by the `source` its rows carry (`cub200 train`).
    """

    name: str
    title: str
    page: str
    folder: str
    layout: str
    markers: tuple[str, ...]
    sizes: Mapping[str, Size]

    @property
    def images(self) -> int:
        """Of all parts."""
        return sum(size.images for size in self.sizes.values())

    def lies_in(self, folder: Path) -> bool:
        """Whether a folder looks like this benchmark, whole or not."""
        return any((folder / marker).is_file() for marker in self.markers)

    def find(self, root: Path | str) -> Path:
        """The benchmark's folder: `root` itself, or the one its archive unpacked into within `root`."""
        root = Path(root)
        for folder in (root, root / self.folder):
            if self.lies_in(folder):
                return folder
        if not root.is_dir():
            raise BadInputError(f"{root}: no such folder; {self.where}")
        raise self.missing(root / self.markers[0])

    def file(self, root: Path, *places: str) -> Path:
        """The first of these files that exists below `root`; an error if none does."""
        for place in places:
            if (root / place).is_file():
                return root / place
        raise self.missing(root / places[0])

    def missing(self, path: Path) -> BadInputError:
        """The error for a file that the benchmark cannot do without."""
        return BadInputError(f"{path}: no such file; {self.where}")

    @property
    def where(self) -> str:
        """What a complete copy looks like, and where to get it."""
        return f"{self.title} is a folder with {self.layout}; get it from {self.page}"

    def read(self, root: Path, rows: Callable[[], SourceRows], *, verify: bool) -> SourceRows:
        """The rows; with `verify`, after a first pass that makes sure that each line, count and image is there."""
        if verify:
            self._check(root, rows())
        return rows()

    def _check(self, root: Path, rows: SourceRows) -> None:
        images: Counter[str] = Counter()
        products: defaultdict[str, set[str]] = defaultdict(set)
        problems: list[str] = []
        missing: list[str] = []
        for row in rows:
            if isinstance(row, SourceProblem):
                problems.append(f"{row.origin}: {row.kind}: {row.detail}")
                continue
            assert row.source is not None
            assert row.product is not None
            assert row.path is not None
            images[row.source] += 1
            products[row.source].add(row.product)
            if not row.path.is_file():
                missing.append(str(row.path.relative_to(root)))
        found = {part: Size(images=images[part], products=len(products[part])) for part in images}
        if problems:
            what = f"unusable lines in its annotations: {len(problems):,} ({_first(problems)})"
        elif found != dict(self.sizes):
            nothing = Size(images=0, products=0)
            what = "; ".join(
                f"{part} has {found.get(part, nothing)}, expected {self.sizes.get(part, nothing)}"
                for part in sorted({*found, *self.sizes})
                if found.get(part) != self.sizes.get(part)
            )
        elif missing:
            what = f"missing images: {len(missing):,} of {images.total():,} ({_first(missing)})"
        else:
            return
        raise BadInputError(
            f"{root} is not the whole of {self.title}: {what}; unpack it again from {self.page}, "
            "or leave out what is missing: univert reproduce --no-verify, univert catalogue build --skip-bad, or "
            f"open_dataset({self.name!r}, {str(root)!r}, verify=False)"
        )


def read_lines(path: Path, fields: int, *, header: int = 0) -> Iterator[tuple[str, list[str]] | SourceProblem]:
    """Where each line of an annotation file stands, and its fields, split at white space; blank lines are left out.

    A line with another number of fields is a problem; `header` lines are skipped.
    """
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        for number, text in enumerate(file, start=1):
            values = text.split()
            if number <= header or not values:
                continue
            origin = f"{path}:{number}"
            if len(values) == fields:
                yield origin, values
            else:
                yield bad_line(origin, f"{len(values)} fields, expected {fields}")


def bad_line(origin: str, detail: str) -> SourceProblem:
    """The problem of a line that cannot be used."""
    return SourceProblem("bad line", origin, detail, "restore the published file")


def with_validation(rows: Iterable[SourceRow | SourceProblem], share: float = 0.1, seed: int = 0) -> SourceRows:
    """Move a share of the training products to the validation split.

    The benchmarks have no validation split, and nothing may be chosen on their test products. A hash of
    `seed` and the product's name decides, so a product keeps its images together and its split does not
    depend on the order of the rows; the share (between 0 and 1) is met on average.

    Raises:
        BadInputError: the share is out of range.

    Example:
        >>> rows = [SourceRow(origin="", vertical="cars", product=str(n), split="train") for n in range(1000)]
        >>> sum(row.split == "val" for row in with_validation(rows))
        84
    """
    if not 0 < share < 1:
        raise BadInputError(f"share: must lie between 0 and 1, got {share}; 0.1 takes every tenth product")
    for row in rows:
        if isinstance(row, SourceRow) and row.split == "train" and row.product is not None:
            name = f"{seed}\0{row.vertical}\0{row.product}".encode("utf-8", "surrogateescape")
            place = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") / 2**64
            if place < share:
                row = replace(row, split="val")
        yield row


def _first(texts: Sequence[str]) -> str:
    return ", ".join(texts[:_SHOWN]) + (", ..." if len(texts) > _SHOWN else "")
