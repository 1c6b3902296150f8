"""The two files that ship, the credits, and contact sheets."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from home.jobs import Workplace
from home.models import Model, fraction
from home.scenes import FEWEST_ITEMS, MOST_ITEMS

UNLABELLED_SHARE = 0.35
"""Share of the train scenes whose items carry their vertical alone."""

LARGEST_BYTES = 24_000_000
"""Both files together."""

BOX = pa.list_(pa.float32(), 4)
TEXTS = ("vertical", "product", "brand", "style", "split", "source")
PRODUCTS = pa.schema([("id", pa.string()), ("image", pa.binary()), *((name, pa.string()) for name in TEXTS)])
ITEM = pa.struct([("box", BOX), ("vertical", pa.string()), ("product", pa.string())])
SCENES = pa.schema(
    {
        "id": pa.string(),
        "image": pa.binary(),
        "split": pa.string(),
        "source": pa.string(),
        "kind": pa.string(),
        "items": pa.list_(ITEM),
        "ignored": pa.list_(BOX),
    }
)

LIBRARIES = {
    "BlendSwap-CC-0": (
        "Models by members of Blend Swap (https://www.blendswap.com), converted by Emmanuel Puybaret / eTeks",
        "CC0 1.0, https://creativecommons.org/publicdomain/zero/1.0/",
    ),
    "BlendSwap-CC-BY": (
        "Models by members of Blend Swap (https://www.blendswap.com), converted by Emmanuel Puybaret / eTeks",
        "CC-BY 3.0, https://creativecommons.org/licenses/by/3.0/",
    ),
    "KatorLegaz": (
        "Copyright 2003-2008 Andrew Kator & Jennifer Legaz",
        "CC-BY 3.0 US, https://creativecommons.org/licenses/by/3.0/us/",
    ),
    "Scopia": (
        "Copyright 2006-2020 Emmanuel Puybaret / eTeks <info@eteks.com> and Scopia Visual Interfaces Systems, s.l. "
        "(http://www.scopia.es)",
        "CC-BY 3.0, https://creativecommons.org/licenses/by/3.0/",
    ),
}
"""Who made each library that is used, and its licence."""


def identifier(name: str) -> str:
    """A name that tells nothing, the same on every run."""
    return hashlib.sha256(f"home/{name}".encode()).hexdigest()[:16]


def product_rows(place: Workplace) -> list[dict[str, Any]]:
    """The product pictures that are drawn, in the order of their ids."""
    rows = [
        {
            "id": identifier(path.stem),
            "image": path.read_bytes(),
            "vertical": product.model.vertical,
            "product": product.key,
            "brand": product.model.brand,
            "style": product.model.style,
            "split": product.model.split,
            "source": "product picture",
        }
        for product in place.products()
        for path in sorted(place.pictures.glob(f"{product.key}.[0-9].jpg"))
    ]
    return sorted(rows, key=lambda row: str(row["id"]))


def scene_rows(place: Workplace) -> list[dict[str, Any]]:
    """The scenes that are drawn and show neither too few items nor too many, in the order of their numbers."""
    rows = []
    for path in sorted(place.scenes.glob("*.json"), key=lambda path: int(path.stem)):
        shown = json.loads(path.read_text(encoding="utf-8"))
        known = not is_unlabelled(int(path.stem), shown["split"])
        items = [
            {"box": item["box"], "vertical": item["vertical"], "product": item["product"] if known else None}
            for item in shown["items"]
        ]
        if FEWEST_ITEMS <= len(items) <= MOST_ITEMS:
            rows.append(
                {
                    "id": f"scene-{int(path.stem):04d}",
                    "image": path.with_suffix(".jpg").read_bytes(),
                    "split": shown["split"],
                    "source": "photo",
                    "kind": shown["kind"],
                    "items": items,
                    "ignored": shown["ignored"],
                }
            )
    return rows


def is_unlabelled(number: int, split: str) -> bool:
    """Whether the items of a scene carry their vertical alone."""
    return split == "train" and fraction("unlabelled", number) < UNLABELLED_SHARE


def pack(place: Workplace, out: Path) -> None:
    """Write `products.parquet`, `scenes.parquet` and `HOME_CREDITS.md` into `out`.

    Raises:
        ValueError: the two files are larger than what may ship.
    """
    out.mkdir(parents=True, exist_ok=True)
    products, scenes = product_rows(place), scene_rows(place)
    for name, rows, schema in (("products", products, PRODUCTS), ("scenes", scenes, SCENES)):
        part = out / f"{name}.part"
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), part, compression="zstd", row_group_size=256)
        part.replace(out / f"{name}.parquet")
    (out / "HOME_CREDITS.md").write_text(credits_text(place.models()), encoding="utf-8")
    sizes = [(out / f"{name}.parquet").stat().st_size for name in ("products", "scenes")]
    items = [item for scene in scenes for item in scene["items"]]
    print(f"{len(products)} pictures of {len({row['product'] for row in products})} products, {sizes[0]:,} bytes")
    print(f"{len(scenes)} scenes with {len(items)} items, {sizes[1]:,} bytes")
    print("verticals:", dict(Counter(item["vertical"] for item in items)))
    print("scenes by split:", dict(Counter(scene["split"] for scene in scenes)))
    if sum(sizes) > LARGEST_BYTES:
        raise ValueError(f"the files hold {sum(sizes):,} bytes; at most {LARGEST_BYTES:,} ship. Draw smaller pictures.")


def credits_text(models: Sequence[Model]) -> str:
    """Who made the models, library by library, and under which licence."""
    lines = [
        "# Credits of the home sample",
        "",
        "`products.parquet` and `scenes.parquet` hold pictures drawn from 3-D models by others, as distributed in",
        "Debian's package sweethome3d-furniture 1.8 (https://www.sweethome3d.com). Every picture was made for Univert:",
        "models were simplified, placed in scenes and lit, and some were given other colours. The pictures are",
        "distributed under the licence of the models they show. `names.parquet` holds what the libraries call their",
        "models, with the translations that come with them, under the same licences.",
    ]
    for library, (maker, licence) in LIBRARIES.items():
        of_library = [model for model in models if model.library == library]
        lines += ["", f"## {library}", "", f"{maker}. {licence}. {len(of_library)} models:", ""]
        by_author: dict[str, list[str]] = defaultdict(list)
        for model in of_library:
            by_author[model.creator].append(model.name)
        for author in sorted(by_author, key=str.lower):
            lines.append(f"- {author}: {', '.join(sorted(by_author[author]))}")
    return "\n".join(lines) + "\n"


def sheets(place: Workplace, out: Path) -> None:
    """Contact sheets: product pictures by the hundred, scenes with their boxes by twenty-five."""
    out.mkdir(parents=True, exist_ok=True)
    pictures = sorted(place.pictures.glob("*.jpg"), key=lambda path: fraction("sheet", path.name))[:200]
    for number in range(0, len(pictures), 100):
        sheet(pictures[number : number + 100], 160, 10).save(out / f"products-{number:03d}.png")
    scenes = sorted(place.scenes.glob("*.jpg"), key=lambda path: int(path.stem))
    for number in range(0, len(scenes), 25):
        sheet(scenes[number : number + 25], 320, 5).save(out / f"scenes-{number:03d}.png")


def sheet(paths: Sequence[Path], side: int, columns: int) -> Image.Image:
    """Pictures side by side; boxes are drawn where a JSON file tells them: items green, ignored ones red."""
    whole = Image.new("RGB", (side * columns, side * -(-len(paths) // columns)), "grey")
    for number, path in enumerate(paths):
        with Image.open(path) as file:
            picture = file.convert("RGB")
        told = path.with_suffix(".json")
        if told.exists():
            shown = json.loads(told.read_text(encoding="utf-8"))
            draw = ImageDraw.Draw(picture)
            for box in shown["ignored"]:
                draw.rectangle(box, outline="red")
            for item in shown["items"]:
                draw.rectangle(item["box"], outline="lime")
        picture.thumbnail((side, side))
        whole.paste(picture, (number % columns * side, number // columns * side))
    return whole
