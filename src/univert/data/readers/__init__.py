"""Readers: one file a source layout, each yields `SourceRow`s, and a `SourceProblem` for what cannot be one."""

from __future__ import annotations

from pathlib import Path

from univert.core.errors import BadInputError, did_you_mean
from univert.data.catalogue import is_catalogue
from univert.data.readers.benchmarks import with_validation
from univert.data.readers.built import read_catalogue
from univert.data.readers.cars196 import CARS196, read_cars196
from univert.data.readers.coco import read_coco
from univert.data.readers.cub200 import CUB200, read_cub200
from univert.data.readers.folder import read_folder
from univert.data.readers.inshop import INSHOP, read_inshop
from univert.data.readers.manifest import read_manifest
from univert.data.readers.sop import SOP, read_sop
from univert.data.rows import SourceRows
from univert.data.tables import count_table_rows

__all__ = ["BENCHMARKS", "count_rows", "open_dataset", "open_source", "with_validation"]

BENCHMARKS = {
    benchmark.name: (benchmark, reader)
    for benchmark, reader in ((CUB200, read_cub200), (CARS196, read_cars196), (SOP, read_sop), (INSHOP, read_inshop))
}
"""Name to benchmark and reader; add one with a file and a line here."""


def open_source(source: Path | str, *, verify: bool = True) -> SourceRows:
    """Pick the reader for a source: a public benchmark, a folder, a manifest, COCO's JSON, or a catalogue.

    Args:
        source: the folder or file.
        verify: of a public benchmark; see `open_dataset`.

    Raises:
        BadInputError: there is nothing at `source`, or no reader for it.
    """
    source = Path(source)
    if not source.exists():
        raise BadInputError(f"{source} does not exist; give a folder with vertical/product/image, or a manifest")
    if source.is_dir():
        if is_catalogue(source):
            return read_catalogue(source)
        for benchmark, reader in BENCHMARKS.values():
            if benchmark.lies_in(source):
                return reader(source, verify=verify)
        return read_folder(source)
    return read_coco(source) if source.suffix.lower() == ".json" else read_manifest(source)


def open_dataset(name: str, root: Path | str, *, verify: bool = True) -> SourceRows:
    """Read a public benchmark in its published layout, its zero-shot splits set.

    Args:
        name: `cub200`, `cars196`, `sop` or `inshop`.
        root: the benchmark's folder, or the one its archive was unpacked in.
        verify: first make sure that every line, count and image is as published.

    Raises:
        BadInputError: no such name, a file is missing, or something is not as published.

    Example:
        >>> rows = open_dataset("cub200", "CUB_200_2011")  # doctest: +SKIP
    """
    if name not in BENCHMARKS:
        raise BadInputError(f"name: no benchmark {name!r}; {did_you_mean(name, BENCHMARKS)}")
    return BENCHMARKS[name][1](root, verify=verify)


def count_rows(source: Path | str) -> int | None:
    """How many rows a source will yield, for a progress bar; None where only reading them would tell."""
    source = Path(source)
    if not source.is_dir():
        return count_table_rows(source)
    return next((benchmark.images for benchmark, _ in BENCHMARKS.values() if benchmark.lies_in(source)), None)
