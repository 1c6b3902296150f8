"""What the furniture libraries call their models, in about twenty languages."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from home.models import PROPERTIES, Product, key_of, read_properties

NAMES = pa.schema(
    [("product", pa.string()), ("language", pa.string()), ("name", pa.string()), ("tags", pa.list_(pa.string()))]
)
"""The columns of a names table."""

ENGLISH = "en"

BRAND_TAGS = ("Blend Swap", "BlendSwap")
"""Tags that name the library, which is the products' brand."""


def read_names(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows `language, name, tags` by the key of a model, for every model of the archives `*.sh3f` in `folder`.

    Translations follow the models by number. One that repeats the English name says nothing and is left out.
    """
    names: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.sh3f")):
        with zipfile.ZipFile(path) as archive:
            entries = read_properties(archive.read(PROPERTIES).decode("latin-1"))
            translated = {
                language_of(file): read_properties(archive.read(file).decode("latin-1"))
                for file in sorted(archive.namelist())
                if file.startswith(f"{Path(PROPERTIES).stem}_")
            }
        for place, entry in enumerate(entries):
            rows = [row(ENGLISH, entry)]
            for language, told in translated.items():
                if place < len(told) and told[place].get("name", "").lower() not in ("", entry["name"].lower()):
                    rows.append(row(language, told[place]))
            names[key_of(path.stem, entry)] = rows
    return names


def language_of(file: str) -> str:
    """`pt-PT` of `PluginFurnitureCatalog_pt_PT.properties`."""
    return Path(file).stem.partition("_")[2].replace("_", "-")


def row(language: str, entry: dict[str, str]) -> dict[str, Any]:
    """One name with its tags."""
    tags = [tag.strip() for tag in entry.get("tags", "").split(",")]
    return {
        "language": language,
        "name": " ".join(entry["name"].split()),
        "tags": [tag for tag in tags if tag and tag not in BRAND_TAGS],
    }


def name_rows(names: dict[str, list[dict[str, Any]]], products: Iterable[Product]) -> Iterator[dict[str, Any]]:
    """The rows of `names` of each product; the English tags of a finish end with its name."""
    for product in products:
        for told in names[product.model.key]:
            tagged = product.finish is not None and told["language"] == ENGLISH
            yield {"product": product.key, **told, "tags": [*told["tags"], product.finish] if tagged else told["tags"]}


def pack_names(folder: Path, products: Iterable[Product], out: Path) -> None:
    """Write `names.parquet` into `out`, ordered by language and product, which packs best."""
    rows = sorted(name_rows(read_names(folder), products), key=lambda told: (told["language"], told["product"]))
    table = pa.Table.from_pylist(rows, schema=NAMES)
    part = out / "names.part"
    pq.write_table(table, part, compression="zstd", compression_level=19)
    part.replace(out / "names.parquet")
    languages, named = (len(set(table[column].to_pylist())) for column in ("language", "product"))
    size = (out / "names.parquet").stat().st_size
    print(f"{len(table)} names of {named} products in {languages} languages, {size:,} bytes")
