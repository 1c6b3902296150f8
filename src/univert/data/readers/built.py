"""A catalogue as a source, so that several can be built into one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from univert.data.catalogue import Catalogue, uri_to_path
from univert.data.rows import SourceRow, SourceRows
from univert.data.splits import NO_SPLIT

_AT_ONCE = 64
_COLUMNS = ("id", "uri", "vertical", "product", "brand", "style", "source")


def read_catalogue(source: Path | str) -> SourceRows:
    """Read a catalogue as it was built: its images of single products, then its scenes, each by id.

    Raises:
        BadInputError: it cannot be opened.
    """
    images = Catalogue.open(source)
    yield from _rows(images.select(in_scene=False))
    if images.in_scene.any():
        yield from _rows(Catalogue.open(source, scenes=True))


def _rows(catalogue: Catalogue) -> SourceRows:
    columns = {name: catalogue.column(name) for name in _COLUMNS}
    splits = catalogue.column("split")
    for start in range(0, len(catalogue), _AT_ONCE):
        positions = np.arange(start, min(start + _AT_ONCE, len(catalogue)))
        linked = {int(at): uri_to_path(columns["uri"][at]) for at in positions if columns["uri"][at] is not None}
        stored = [int(at) for at in positions if int(at) not in linked]
        contents = dict(zip(stored, catalogue.image_bytes(stored), strict=True))
        for at, box in zip(positions.tolist(), catalogue.boxes(positions), strict=True):
            shown = catalogue.is_scenes
            yield SourceRow(
                origin=f"{catalogue.path}: {columns['id'][at]}",
                path=linked.get(at),
                image=contents.get(at),
                box_xyxy_px=box,
                split=splits[at] or NO_SPLIT,
                items=catalogue.items([at])[0] if shown else None,
                ignored=catalogue.ignored([at])[0] if shown else (),
                **{name: columns[name][at] for name in _COLUMNS if name != "uri"},
            )
