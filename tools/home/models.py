"""The furniture libraries: their models, who made them, which product each becomes and in which split it lies."""

from __future__ import annotations

import csv
import hashlib
import math
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("verticals.csv")
"""Vertical of every model, or why it is left out."""

PROPERTIES = "PluginFurnitureCatalog.properties"

SHARES = (("train", 0.5), ("val", 0.2), ("test", 0.3))
"""Share of each vertical's models a split gets."""

PALETTE = {
    "white": (0.85, 0.84, 0.80),
    "black": (0.02, 0.02, 0.022),
    "grey": (0.22, 0.23, 0.24),
    "oak": (0.50, 0.31, 0.14),
    "walnut": (0.12, 0.055, 0.025),
    "red": (0.45, 0.03, 0.03),
    "mustard": (0.60, 0.33, 0.03),
    "green": (0.05, 0.20, 0.08),
    "teal": (0.02, 0.25, 0.27),
    "navy": (0.02, 0.05, 0.20),
    "pink": (0.65, 0.27, 0.30),
}
"""Colours of the finishes, linear RGB."""

FINISHED_VERTICALS = ("seating", "sofas", "tables", "beds", "storage", "lighting", "clothing")
FINISHED_SHARE = 0.22
"""Share of the models of `FINISHED_VERTICALS` that come in more finishes."""


@dataclass(frozen=True, slots=True)
class Model:
    """One 3-D model of a library.

    Attributes:
        library: the library's file name without its ending.
        name: the model's name in its library.
        title: what the library calls it in English.
        category: the room it belongs to, as the library says.
        creator: its author, as the library says.
        obj: the OBJ file within the archive.
        size_m: width, depth and height.
        elevation_m: height above the floor where it hangs; 0 stands on the floor.
        top_m: height on which other things may stand; None where nothing may.
        rotation: 3 x 3 rotation, row by row, that turns the file's axes into the usual ones.
        vertical: its vertical in the sample.
        split: `train`, `val` or `test`.
    """

    library: str
    name: str
    title: str
    category: str
    creator: str
    obj: str
    size_m: tuple[float, float, float]
    elevation_m: float
    top_m: float | None
    rotation: tuple[float, ...] | None
    vertical: str
    split: str

    @property
    def key(self) -> str:
        """Unique name, which is also the product's."""
        return slug(f"{self.library}-{self.name}")

    @property
    def brand(self) -> str:
        """The library as a brand."""
        return slug(self.library)

    @property
    def style(self) -> str:
        """The room category as a style."""
        return slug(self.category)


@dataclass(frozen=True, slots=True)
class Product:
    """A model in one finish; `finish` is None for the model as it is."""

    model: Model
    finish: str | None = None

    @property
    def key(self) -> str:
        """Unique name."""
        return self.model.key if self.finish is None else f"{self.model.key}-{self.finish}"


def slug(text: str) -> str:
    """Lower-case words joined by `-`."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def fraction(*parts: object) -> float:
    """A number in [0, 1) that follows from `parts` alone."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def read_properties(text: str) -> list[dict[str, str]]:
    """The entries `key#number=value` of a catalogue of Sweet Home 3D, one dict a number."""
    entries: dict[int, dict[str, str]] = defaultdict(dict)
    for line in text.splitlines():
        if match := re.match(r"(\w+)#(\d+)=(.*)", line):
            value = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), match[3].strip())
            entries[int(match[2])][match[1]] = value
    return [entries[number] for number in sorted(entries)]


def read_table(path: Path = TABLE) -> dict[tuple[str, str], tuple[str, str]]:
    """(vertical, reason to leave out) by (library, model); exactly one of the two is not empty."""
    with path.open(encoding="utf-8", newline="") as file:
        return {(row["library"], row["model"]): (row["vertical"], row["left_out"]) for row in csv.DictReader(file)}


def assign_splits(verticals: dict[str, str]) -> dict[str, str]:
    """A split for each name, `SHARES` of every vertical, in an order that follows from the names alone."""
    by_vertical: dict[str, list[str]] = defaultdict(list)
    for name, vertical in verticals.items():
        by_vertical[vertical].append(name)
    splits = {}
    for names in by_vertical.values():
        names.sort(key=lambda name: fraction("split", name))
        for place, name in enumerate(names):
            share = (place + 0.5) / len(names)
            split = "train" if share < SHARES[0][1] else "val" if share < SHARES[0][1] + SHARES[1][1] else "test"
            splits[name] = split
    return splits


def read_models(folder: Path) -> list[Model]:
    """Every model of the archives `*.sh3f` in `folder` that the table gives a vertical.

    Raises:
        ValueError: a model is missing from the table.
    """
    table = read_table()
    found: list[tuple[str, dict[str, str]]] = []
    for path in sorted(folder.glob("*.sh3f")):
        with zipfile.ZipFile(path) as archive:
            entries = read_properties(archive.read(PROPERTIES).decode("latin-1"))
        found += [(path.stem, entry) for entry in entries]
    if missing := [key for library, entry in found if (key := (library, name_of(entry))) not in table]:
        raise ValueError(f"{len(missing)} models are missing from {TABLE}, for example {missing[0]}: add them.")
    kept = [(library, entry) for library, entry in found if table[library, name_of(entry)][0]]
    verticals = {key_of(lib, entry): table[lib, name_of(entry)][0] for lib, entry in kept}
    splits = assign_splits(verticals)
    return [model_of(library, entry, verticals, splits) for library, entry in kept]


def name_of(entry: dict[str, str]) -> str:
    """A model's name in its library."""
    return entry["id"].split("#")[1]


def key_of(library: str, entry: dict[str, str]) -> str:
    """`Model.key` of an entry."""
    return slug(f"{library}-{name_of(entry)}")


def model_of(library: str, entry: dict[str, str], verticals: dict[str, str], splits: dict[str, str]) -> Model:
    """One entry of a library's properties as a `Model`."""
    key = key_of(library, entry)
    top = float(entry.get("dropOnTopElevation", entry["height"]))
    rotation = entry.get("modelRotation")
    return Model(
        library=library,
        name=name_of(entry),
        title=entry["name"],
        category=entry["category"],
        creator=entry["creator"],
        obj=entry["model"].lstrip("/"),
        size_m=(float(entry["width"]) / 100, float(entry["depth"]) / 100, float(entry["height"]) / 100),
        elevation_m=float(entry.get("elevation", 0)) / 100,
        top_m=None if top < 0 else top / 100,
        rotation=None if rotation is None else tuple(map(float, rotation.split())),
        vertical=verticals[key],
        split=splits[key],
    )


def finishes(model: Model, colour: tuple[float, float, float]) -> list[str]:
    """Finishes other than its own that `model`, of mean linear `colour`, is sold in: none, or two far from it."""
    if model.vertical not in FINISHED_VERTICALS or fraction("finish", model.key) >= FINISHED_SHARE:
        return []

    def distance(name: str) -> float:
        return math.fsum(abs(a**0.45 - b**0.45) for a, b in zip(PALETTE[name], colour, strict=True))

    far = [name for name in PALETTE if distance(name) > 0.5]
    return sorted(far, key=lambda name: fraction("colour", model.key, name))[:2]


def products_of(models: Iterable[Model], colours: dict[str, tuple[float, float, float]]) -> list[Product]:
    """All products, in the models' order; `colours` has the mean colour of each model by its key."""
    products = []
    for model in models:
        if model.key in colours:
            products += [Product(model), *(Product(model, finish) for finish in finishes(model, colours[model.key]))]
    return products
