"""Pictures of the emoji catalogue: rasterise, bring to one size, tell apart, encode."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import resvg_py
from PIL import Image, ImageOps

from emoji_names import Emoji

LARGEST_SIDE_PX = 72
SAME_DRAWING = 5.5
"""Two pictures are the same drawing below this root-mean-square difference (`distances`, 0 to 255).

Measured on the five artists: copies of one drawing lie below 1; the same figure with a detail that cannot be seen
at this size (an astronaut behind a visor) lies between 2 and 5.5; flags that differ in one shade start at 5.8.
"""

KEEPERS = {
    "flag-australia",
    "flag-british-indian-ocean-territory",
    "flag-france",
    "flag-norway",
    "flag-spain",
    "flag-united-states",
}
"""Flags that keep a drawing they share with a territory's flag."""

Pictures = dict[tuple[str, str], Image.Image]
"""(artist, product) to an RGBA picture, the more important artist first."""

Report = Callable[[str], None]
"""Receives one line for each thing left out."""


def from_file(path: Path) -> Image.Image:
    """A picture file as RGBA, padded to a square, its sides at most `LARGEST_SIDE_PX`."""
    with Image.open(path) as opened:
        picture = opened.convert("RGBA")
    side = min(max(picture.size), LARGEST_SIDE_PX)
    if picture.size == (side, side):
        return picture
    return ImageOps.pad(picture, (side, side), Image.Resampling.LANCZOS, color=(0, 0, 0, 0))


def from_svg(svg: str) -> Image.Image:
    """An SVG drawing as a square RGBA picture with sides of `LARGEST_SIDE_PX`."""
    png = resvg_py.svg_to_bytes(svg_string=svg, width=LARGEST_SIDE_PX, height=LARGEST_SIDE_PX, skip_system_fonts=True)
    with Image.open(io.BytesIO(bytes(png))) as opened:
        return opened.convert("RGBA")


def encode(picture: Image.Image) -> bytes:
    """A picture as WebP: lossy, with alpha, without metadata."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80, alpha_quality=70, method=5, exact=False)
    return buffer.getvalue()


def is_blank(picture: Image.Image) -> bool:
    """Whether nearly nothing is drawn: under 1% of the pixels can be seen."""
    alpha = np.asarray(picture)[..., 3]
    return bool((alpha > 32).mean() < 0.01)


def distances(signatures: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Root-mean-square differences between `signature` vectors (N, D), as (N, N), 0 to 255."""
    x = signatures.astype(np.float64)
    squares = (x**2).sum(axis=1)
    gaps: npt.NDArray[np.float64] = np.sqrt(np.maximum(squares[:, None] + squares - 2 * x @ x.T, 0) / x.shape[1])
    return gaps


def signature(picture: Image.Image) -> npt.NDArray[np.float32]:
    """A picture at 32 x 32 px with premultiplied alpha, as a flat vector."""
    small = picture.convert("RGBa").resize((32, 32), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).reshape(-1)


def without_blanks(pictures: Pictures, report: Report) -> Pictures:
    """Leave out the pictures that show nothing."""
    for artist, product in (key for key, picture in pictures.items() if is_blank(picture)):
        report(f"blank: {artist} {product}")
    return {key: picture for key, picture in pictures.items() if not is_blank(picture)}


def without_repeats(pictures: Pictures, emoji: list[Emoji], report: Report) -> Pictures:
    """Leave out the pictures from which the product, or the artist, cannot be told.

    Where an artist draws two emoji the same, one keeps the drawing: a flag in `KEEPERS` before the flag of a
    territory, otherwise the later in Unicode's order, which is the more specific (`man-bowing`, not
    `person-bowing`, where the artist drew a man for both). Where two artists have the same drawing of a product,
    the one earlier in `pictures` keeps it.
    """
    place = {item.product: number for number, item in enumerate(emoji)}
    kept: Pictures = {}
    artists = list(dict.fromkeys(artist for artist, _ in pictures))
    for artist in artists:
        mine = [product for name, product in pictures if name == artist]
        mine.sort(key=lambda product: (product not in KEEPERS, -place[product]))
        gaps = distances(np.stack([signature(pictures[artist, product]) for product in mine]))
        stays: list[int] = []
        for row, product in enumerate(mine):
            rivals = {f"{artist} {mine[other]}": float(gaps[row, other]) for other in stays}
            for other_artist in artists:
                if (other_artist, product) in kept:
                    pair = np.stack([signature(pictures[name, product]) for name in (artist, other_artist)])
                    rivals[f"{other_artist} {product}"] = float(distances(pair)[0, 1])
            nearest = min(rivals, key=lambda name: rivals[name], default="")
            if nearest and rivals[nearest] < SAME_DRAWING:
                report(f"same drawing: {artist} {product} = {nearest} ({rivals[nearest]:.1f})")
            else:
                stays.append(row)
        kept |= {(artist, mine[row]): pictures[artist, mine[row]] for row in sorted(stays)}
    return {key: picture for key, picture in pictures.items() if key in kept}


def without_singles(pictures: Pictures, report: Report) -> Pictures:
    """Leave out the products that fewer than two artists draw: nothing can be retrieved for them."""
    artists = Counter(product for _, product in pictures)
    for product in sorted(product for product, count in artists.items() if count < 2):
        report(f"one artist only: {product}")
    return {key: picture for key, picture in pictures.items() if artists[key[1]] >= 2}


def contact_sheet(pictures: list[Image.Image], columns: int = 24) -> Image.Image:
    """Pictures side by side on a grey-blue ground, for looking at."""
    cell = LARGEST_SIDE_PX + 4
    sheet = Image.new("RGB", (columns * cell, -(-len(pictures) // columns) * cell), (225, 225, 240))
    for number, picture in enumerate(pictures):
        corner = (number % columns * cell + 2, number // columns * cell + 2)
        sheet.paste(picture, corner, picture)
    return sheet
