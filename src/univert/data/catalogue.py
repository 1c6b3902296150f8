"""The catalogue: a table of images in a Lance dataset, opened for reading, sliced, and read at random."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool

from univert.core.errors import BadInputError, did_you_mean
from univert.core.files import fingerprint as content_fingerprint
from univert.data.decode import BoxXyxyPx, Rgb
from univert.data.rows import Item
from univert.data.scene_items import images_of_one_product
from univert.data.splits import SPLITS

FORMAT_VERSION = "2"
FORMAT_KEY = "univert.catalogue_format"
FINGERPRINT_KEY = "univert.fingerprint"
BACKGROUND_KEY = "univert.background_rgb"

_BOX = pa.list_(pa.float64(), 4)
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("image", pa.large_binary()),
        pa.field("uri", pa.string()),
        pa.field("vertical", pa.string(), nullable=False),
        pa.field("product", pa.string()),
        pa.field("brand", pa.string()),
        pa.field("style", pa.string()),
        pa.field("split", pa.string()),
        pa.field("source", pa.string()),
        pa.field("box", _BOX),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("items", pa.list_(pa.struct([("box", _BOX), ("vertical", pa.string()), ("product", pa.string())]))),
        pa.field("ignored", pa.list_(_BOX)),
    ]
)
"""One row an image; exactly one of `image` (its bytes) and `uri` (`file://...`) is set.

`digest` is the same for the same bytes and the same box. A scene has `items`, and no vertical, product and box of its
own; `ignored` are boxes of what is neither an item nor background.
"""

COLUMNS = ("id", "uri", "vertical", "product", "brand", "style", "split", "source", "digest")

Names = str | Iterable[str] | None


class Catalogue:
    """A catalogue of images, each of one product, or a selection of one.

    Each item of a scene is such an image: the scene within the item's box. The scenes themselves, with all of their
    items, are seen if the catalogue is opened with `scenes=True`. Brand and style of an item are those of its product's
    pictures.

    Rows are in order of their id, whatever order they were built in. The id of an item is that of its scene with `#1`,
    `#2`, ... in the order in which the scene lists them.

    A selection is a view: it holds row numbers, never images. Safe to use from several threads.

    Attributes:
        path: the folder of the Lance dataset, absolute.
        is_scenes: the rows are whole scenes, whose items `items` gives.
        fingerprint: a hash of the content: the same for the same images and labels, whatever the order or
            place of the build, and different for each selection.
        background_rgb: the colour on which transparent images are to be composited.

    Example:
        >>> shoes = Catalogue.open("catalogue").select(vertical="shoes", split="train")  # doctest: +SKIP
        >>> shoes.image_bytes([0, 1])  # doctest: +SKIP
    """

    path: Path
    is_scenes: bool
    fingerprint: str
    background_rgb: Rgb

    def __init__(self, path: Path, dataset: Any, table: pa.Table, order: np.ndarray, rows: np.ndarray) -> None:
        """Internal: use `Catalogue.open` and `select`."""
        metadata = {key.decode(): value.decode() for key, value in (dataset.schema.metadata or {}).items()}
        self.path = path.absolute()  # whoever opened it may go to another folder
        self.is_scenes = "items" in table.column_names
        self.background_rgb = tuple(json.loads(metadata[BACKGROUND_KEY]))
        self._dataset = dataset
        self._table = table  # the columns without images, in order of id
        self._order = order  # row of the table -> row of the dataset
        self._rows = rows  # row of this selection -> row of the table
        self.fingerprint = metadata[FINGERPRINT_KEY]
        if len(rows) < table.num_rows:
            self.fingerprint = content_fingerprint(self.fingerprint, rows.astype("<i8").tobytes())

    @classmethod
    def open(cls, path: Path | str, *, scenes: bool = False) -> Catalogue:
        """Open a catalogue built by `univert catalogue build`.

        Args:
            path: of the catalogue.
            scenes: see whole scenes, and nothing else; or else images of one product each, items of scenes among them.

        Raises:
            BadInputError: there is no catalogue at `path`, a newer Univert wrote it, or it holds no scenes.
        """
        path = Path(path)
        dataset = _open_dataset(path)
        there = [name for name in ("items", "ignored") if name in dataset.schema.names]
        table = dataset.to_table(columns=[*COLUMNS, "box", *there]).combine_chunks()
        shown = pc.is_valid(table["items"]).to_numpy() if there else np.zeros(table.num_rows, bool)
        if scenes and not shown.any():
            raise BadInputError(f"{path} holds images of single products; scenes with items are needed here")
        if scenes:
            order = np.flatnonzero(shown)
            table = table.take(order)
        else:
            table, order = images_of_one_product(
                table.select([*COLUMNS, "box"]), shown, table["items"] if there else None
            )
        by_id = pc.sort_indices(table, sort_keys=[("id", "ascending")]).to_numpy().astype(np.int64)
        return cls(path, dataset, table.take(by_id), order[by_id], np.arange(table.num_rows, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"Catalogue({str(self.path)!r}, {len(self)} images, {len(self.verticals)} verticals)"

    @property
    def verticals(self) -> list[str]:
        """The names of the verticals in this selection, sorted; of scenes, those of their items."""
        if self.is_scenes:
            return sorted({item.vertical for items in self.items() for item in items})
        return sorted(pc.unique(self._table["vertical"].take(self._rows)).to_pylist())

    def select(
        self,
        *,
        vertical: Names = None,
        split: Names = None,
        labelled: bool | None = None,
        brand: Names = None,
        not_brand: Names = None,
        source: Names = None,
        in_scene: bool | None = None,
    ) -> Catalogue:
        """The rows that meet every condition given, in the same order.

        Args:
            vertical: one name or several.
            split: one of `train`, `val`, `test`, or several.
            labelled: true for images with a product, false for those without.
            brand: one name or several.
            not_brand: leave these brands out; images without a brand stay.
            source: one name or several.
            in_scene: true for items of scenes, false for images of single products.

        Raises:
            BadInputError: a name that does not occur in the catalogue.
        """
        kept = np.ones(len(self), dtype=bool)
        for parameter, column, names, wanted in (
            ("vertical", "vertical", vertical, True),
            ("split", "split", split, True),
            ("brand", "brand", brand, True),
            ("not_brand", "brand", not_brand, False),
            ("source", "source", source, True),
        ):
            if names is not None:
                known = self._known_names(column, [names] if isinstance(names, str) else list(names), parameter)
                values = self._table[column].take(self._rows)
                inside = pc.is_in(values, value_set=pa.array(known, pa.string()))
                kept &= inside.to_numpy(zero_copy_only=False) == wanted
        if in_scene is not None:
            kept &= self.in_scene == in_scene
        if labelled is not None:
            has_product = pc.is_valid(self._table["product"].take(self._rows)).to_numpy(zero_copy_only=False)
            kept &= has_product == labelled
        return Catalogue(self.path, self._dataset, self._table, self._order, self._rows[kept])

    def column(self, name: str) -> np.ndarray:
        """One column, shape (N,), dtype object, None as None.

        Raises:
            BadInputError: `name` is none of a column, or is the image or its box.
        """
        if name not in COLUMNS:
            raise BadInputError(f"column: unknown name {name!r}; {did_you_mean(name, COLUMNS)}")
        values = np.empty(len(self), dtype=object)
        values[:] = self._table[name].take(self._rows).to_pylist()
        return values

    def product_labels(self) -> np.ndarray:
        """The product of each row as a number, shape (N,), int64.

        It is the product's place among the selection's sorted names; unlabelled rows have -1.
        """
        values = self._table["product"].take(self._rows).combine_chunks()
        names = sorted(pc.unique(values.drop_null()).to_pylist())
        codes = pc.fill_null(pc.index_in(values, value_set=pa.array(names, pa.string())), -1)
        return np.asarray(codes.to_numpy(), dtype=np.int64)

    @property
    def in_scene(self) -> Bool[np.ndarray, "N"]:
        """Which rows are items of scenes."""
        return np.asarray(self._table["in_scene"].take(self._rows).to_numpy(), bool)

    def image_bytes(self, positions: Sequence[int] | np.ndarray) -> list[bytes]:
        """The encoded images at these positions of the selection, in the order asked for.

        Raises:
            BadInputError: a position is out of range, or a linked file is gone.
        """
        rows = self._rows_at(positions)
        uris = self._table["uri"].take(rows).to_pylist()
        stored = [int(row) for row, uri in zip(self._order[rows], uris, strict=True) if uri is None]
        contents = iter(self._dataset.take(stored, columns=["image"])["image"].to_pylist() if stored else ())
        return [next(contents) if uri is None else _read_uri(uri) for uri in uris]

    def boxes(self, positions: Sequence[int] | np.ndarray) -> list[BoxXyxyPx | None]:
        """The boxes (x0, y0, x1, y1) at these positions, in pixels of the upright image.

        None means the whole image.

        Raises:
            BadInputError: a position is out of range.
        """
        found = self._table["box"].take(self._rows_at(positions)).to_pylist()
        return [None if box is None else (box[0], box[1], box[2], box[3]) for box in found]

    def items(self, positions: Sequence[int] | np.ndarray | None = None) -> list[tuple[Item, ...]]:
        """What the scenes at these positions show; None means all of the selection.

        Raises:
            BadInputError: a position is out of range, or the catalogue was not opened with `scenes=True`.
        """
        rows = self._scene_rows(positions)
        return [
            tuple(
                Item(box_xyxy_px=tuple(item["box"]), vertical=item["vertical"], product=item["product"])
                for item in items
            )
            for items in self._table["items"].take(rows).to_pylist()
        ]

    def ignored(self, positions: Sequence[int] | np.ndarray | None = None) -> list[tuple[BoxXyxyPx, ...]]:
        """Boxes of what in the scenes at these positions is neither an item nor background; see `items`."""
        found = self._table["ignored"].take(self._scene_rows(positions)).to_pylist()
        return [tuple((box[0], box[1], box[2], box[3]) for box in boxes or ()) for boxes in found]

    def _scene_rows(self, positions: Sequence[int] | np.ndarray | None) -> np.ndarray:
        if not self.is_scenes:
            raise BadInputError(f"{self.path}: its scenes were not asked for; use Catalogue.open(path, scenes=True)")
        return self._rows if positions is None else self._rows_at(positions)

    def _rows_at(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        wanted = np.asarray(positions, dtype=np.int64)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise BadInputError(f"positions: must be from 0 to {len(self) - 1}, got {wanted.min()} to {wanted.max()}")
        return self._rows[wanted]

    def _known_names(self, column: str, names: list[str], parameter: str) -> list[str]:
        known = list(SPLITS) if column == "split" else pc.unique(self._table[column].drop_null()).to_pylist()
        names = [unicodedata.normalize("NFC", name) for name in names]
        for name in names:
            if name not in known:
                hint = did_you_mean(str(name), sorted(known)) if known else "the column is empty"
                raise BadInputError(f"{parameter}: no {name!r} in {self.path}; {hint}")
        return names


def uri_to_path(uri: str) -> Path:
    """The local file that a `file://` address names.

    Raises:
        BadInputError: the address is not one of a local file.
    """
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise BadInputError(f"uri {uri!r}: must be a local file:// address; copy the image to this machine")
    # split at the scheme only: '?' and '#' are ordinary characters in an unescaped file name
    raw = unquote_to_bytes(uri.split("://", 1)[1].removeprefix("localhost"))
    return Path(raw.decode("utf-8", "surrogateescape"))


def is_catalogue(path: Path) -> bool:
    """Whether a folder holds a catalogue, be it of another version."""
    try:
        _open_dataset(path, any_version=True)
    except BadInputError:
        return False
    return True


def _open_dataset(path: Path, *, any_version: bool = False) -> Any:
    if not (path / "_versions").is_dir():
        what = "is not a catalogue" if path.exists() else "does not exist"
        raise BadInputError(f"{path} {what}; make one with: univert catalogue build SRC OUT")
    try:
        dataset = lance.dataset(str(path.absolute()))
        metadata = dataset.schema.metadata or {}
    except (ValueError, OSError, RuntimeError) as error:
        raise BadInputError(f"{path} cannot be read as a catalogue: {error}; build it again") from None
    version = metadata.get(FORMAT_KEY.encode(), b"").decode()
    if not version or FINGERPRINT_KEY.encode() not in metadata:
        raise BadInputError(f"{path} is a Lance dataset but not a catalogue; make one with: univert catalogue build")
    if version != FORMAT_VERSION and not any_version:
        raise BadInputError(
            f"{path} has catalogue format {version}, this Univert reads {FORMAT_VERSION}; "
            "upgrade Univert or build the catalogue again"
        )
    return dataset


def _read_uri(uri: str) -> bytes:
    try:
        return uri_to_path(uri).read_bytes()
    except OSError as error:
        raise BadInputError(
            f"{uri}: the linked image cannot be read ({error.strerror}); "
            "put the file back, or build the catalogue again without --link"
        ) from None
