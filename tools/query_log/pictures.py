"""The pictures that queries return: the sample's own, and copies that are nearly the same or damaged."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from query_log.held_out import fraction
from univert.data.sample import SAMPLE_PATHS

NEAR = "near"
DAMAGED = ("small", "blurred", "dark", "overcompressed", "watermarked")
"""The kinds of damage."""

PICTURES = pa.schema(
    [(name, pa.string()) for name in ("id", "of", "change", "vertical", "product")] + [("image", pa.binary())]
)
"""A picture's `change` is None, `near` or a kind of damage; then `of` is the id of the one it is a copy of."""

_AT_ONCE = 256


@cache
def read_originals() -> tuple[pa.Table, dict[str, str]]:
    """The product pictures and the items of scenes whose product is known, cut out; and each product's brand."""
    products = pq.read_table(SAMPLE_PATHS[0])
    rows = [
        {"id": row["id"], "vertical": row["vertical"], "product": row["product"], "image": row["image"]}
        for row in products.select(["id", "vertical", "product", "image"]).to_pylist()
    ]
    for scene in pq.read_table(SAMPLE_PATHS[1], columns=["id", "image", "items"]).to_pylist():
        with Image.open(io.BytesIO(scene["image"])) as photo:
            for number, item in enumerate(scene["items"]):
                if item["product"] is not None:
                    cut = encode(photo.convert("RGB").crop(tuple(map(round, item["box"]))), 90)
                    name = f"{scene['id']}-{number}"
                    rows.append({"id": name, "vertical": item["vertical"], "product": item["product"], "image": cut})
    brands = dict(zip(products["product"].to_pylist(), products["brand"].to_pylist(), strict=True))
    return pa.Table.from_pylist(rows, schema=PICTURES), brands


def copy_id(original: str, change: str) -> str:
    """The id of a copy; one that tells nothing, as a picture found elsewhere has."""
    return f"{int(fraction('copy', original, change) * 2**52):013x}"


def encode(picture: Image.Image, quality: int) -> bytes:
    """JPEG bytes."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _near(picture: Image.Image, chance: float) -> bytes:
    width, height = picture.size
    margin = 0.01 + 0.03 * chance
    box = (round(width * margin), round(height * margin / 2), round(width * (1 - margin / 2)), height)
    lit = ImageEnhance.Brightness(picture.crop(box)).enhance(0.95 + 0.1 * chance)
    return encode(lit.resize((max(8, round(width * (0.8 + 0.3 * chance))), max(8, round(height * 0.9)))), 80)


def _watermarked(picture: Image.Image, chance: float) -> bytes:
    marked = picture.copy()
    draw = ImageDraw.Draw(marked)
    font = ImageFont.load_default(max(10, picture.width // 9))
    for row in range(3):
        place = (picture.width * 0.05, picture.height * (0.1 + 0.3 * row))
        draw.text(place, f"photostock-{int(1000 * chance)}", fill=(210, 210, 210), font=font, stroke_width=1,
                  stroke_fill=(120, 120, 120))  # fmt: skip
    return encode(marked, 85)


CHANGES: dict[str, Callable[[Image.Image, float], bytes]] = {
    NEAR: _near,
    "small": lambda picture, chance: encode(resized(picture, 24 + 24 * chance), 85),
    "blurred": lambda picture, chance: encode(
        picture.filter(ImageFilter.GaussianBlur((0.012 + 0.012 * chance) * max(picture.size))), 85
    ),
    "dark": lambda picture, chance: encode(ImageEnhance.Brightness(picture).enhance(0.08 + 0.12 * chance), 85),
    "overcompressed": lambda picture, chance: encode(picture, 3 + int(5 * chance)),
    "watermarked": _watermarked,
}
"""How each copy is made of a picture, by a number in [0, 1)."""


def resized(picture: Image.Image, longest_px: float) -> Image.Image:
    """The picture with its longer side `longest_px` long."""
    scale = longest_px / max(picture.size)
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def write_pictures(out: Path, originals: pa.Table, used: Iterable[tuple[str, str | None]]) -> int:
    """Write the pictures that are `used`, each an original's id with a change or None; returns how many."""
    place = {name: row for row, name in enumerate(originals["id"].to_pylist())}
    wanted = sorted({(place[name], change or "") for name, change in used})
    with pq.ParquetWriter(out, PICTURES, compression="zstd") as writer:
        for start in range(0, len(wanted), _AT_ONCE):
            rows = []
            for row, change in wanted[start : start + _AT_ONCE]:
                told = originals.slice(row, 1).to_pylist()[0]
                if change:
                    with Image.open(io.BytesIO(told["image"])) as file:
                        image = CHANGES[change](file.convert("RGB"), fraction("amount", told["id"], change))
                    told |= {"id": copy_id(told["id"], change), "of": told["id"], "change": change, "image": image}
                rows.append(told)
            writer.write_table(pa.Table.from_pylist(rows, schema=PICTURES))
    return len(wanted)
