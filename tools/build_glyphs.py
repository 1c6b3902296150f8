"""Build the glyph data set: every character of eight scripts as a product, drawn in the free fonts of Debian.

    python tools/build_glyphs.py                                  everything, into .work/glyphs/glyphs.lance
    python tools/build_glyphs.py --products-limit 4000 --out .work/glyphs/glyphs-4000.lance
    python tools/build_glyphs.py --sheet sheet.png ...            also a contact sheet, for looking at

The fonts come from Debian's packages; as root:

    apt-get update && apt-get install -y --no-install-recommends $(python tools/build_glyphs.py --packages)

Product = character (`U+4E00`), vertical = script, brand = font family, style = Unicode block, split by product. An
image is 48 x 48 px, black on white; the em has the same height in every font, the ink lies in the middle of the image,
and what would be cut off is made smaller. Of each family one face is used, the most regular one.

Left out:

- drawings that are not of the character: where the font's character map lacks it, blanks, `.notdef` boxes, pixels
  that a face repeats for many characters, and the few fonts named in `glyph_fonts`;
- repeats: drawings of a character that are the same as another font's (regional faces, monospaced twins, aliases);
- other names of a character (fullwidth, presentation and compatibility forms), and characters that most fonts draw
  with the very pixels of another one of the vertical; the earlier code point stays. Characters that look the same in
  different scripts (Latin A, Greek Alpha, Cyrillic A) are different products of different verticals;
- characters with fewer than `--min-fonts` drawings after that.

Of the rest a random choice of `--fonts-per-product` drawings each, fixed by the seed. The catalogue is the same for
the same fonts, versions and options.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import random
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from fontTools.unicodedata import block
from PIL import Image

from glyph_drawing import SIDE_PX, draw, encode, survey
from glyph_fonts import PACKAGES, WRONG_DRAWINGS, Face, character_map, faces_by_code, find_faces
from glyph_products import Drawings, Product, choose, limited, table
from glyph_scripts import VERTICALS, vertical_of
from univert.core.errors import BadInputError
from univert.core.files import write_atomic
from univert.core.terminal import progress_bar
from univert.data.build import build_catalogue
from univert.data.rows import SourceRow
from univert.data.splits import split_of

MOST_TRIED = 40
"""Faces looked at for one character; Latin letters have hundreds."""

T = TypeVar("T")
R = TypeVar("R")


class Spread(Protocol):
    """Does jobs, in several processes or not."""

    def __call__(self, function: Callable[[T], R], jobs: Sequence[T]) -> Iterator[R]:
        """The results in the order of the jobs."""


def rows_of(product: Product) -> list[SourceRow]:
    """The images of a product."""
    character, name = chr(product.code), f"U+{product.code:04X}"
    rows = []
    for face in product.faces:
        ink = draw(face, character)
        assert ink is not None, f"{face} drew {name} a moment ago"
        rows.append(
            SourceRow(
                origin=f"{face.path}#{face.index} {name}",
                vertical=product.vertical,
                image=encode(ink),
                id=f"{name} {face.family}",
                product=name,
                brand=face.family,
                style=block(character),
                split=split_of(name, product.vertical, train=0.5, val=0.1),
                source=face.path.name,
            )
        )
    return rows


def look(job: tuple[int, list[tuple[int, Face]]]) -> tuple[int, list[tuple[int, int, bool]]]:
    """`survey` of a character; faces go by their numbers."""
    code, faces = job
    found = survey([face for _, face in faces], chr(code))
    return code, [(faces[place][0], digest, distinct) for place, digest, distinct in found]


def survey_all(faces: Sequence[Face], scripts: Sequence[str], least: int, seed: int, spread: Spread) -> Drawings:
    """The drawings of all characters of some scripts that at least `least` faces have."""
    maps = list(watched(spread(character_map, faces), "Reading fonts", len(faces), "fonts"))
    jobs = []
    for code, numbers in sorted(faces_by_code(maps).items()):
        vertical = vertical_of(chr(code))
        known = [number for number in numbers if (faces[number].family, vertical) not in WRONG_DRAWINGS]
        if vertical in scripts and len(known) >= least:
            order = random.Random(f"{seed} {code}")  # noqa: S311
            tried = order.sample(known, min(len(known), MOST_TRIED))
            jobs.append((code, [(number, faces[number]) for number in tried]))
    return dict(watched(spread(look, jobs), "Looking at characters", len(jobs), "characters"))


def spread_over(pool: Any | None, function: Callable[[T], R], jobs: Sequence[T]) -> Iterator[R]:
    """Results in the order of the jobs, from the processes of a pool if there is one."""
    results: Iterator[R] = map(function, jobs) if pool is None else pool.imap(function, jobs, chunksize=64)
    return results


def watched(results: Iterator[R], title: str, total: int, unit: str) -> Iterator[R]:
    """The same results, with a progress bar."""
    with progress_bar(title, total, unit=unit) as advance:
        for result in results:
            advance(1)
            yield result


def check_found(products: list[Product], scripts: Sequence[str], faces: Sequence[Face], options: Any) -> None:
    """Stop where a script has no product: its fonts are missing.

    Raises:
        BadInputError: it names the packages.
    """
    there = {product.vertical for product in products}
    lacking = [script for script in scripts if script not in there]
    if lacking:
        wanted = " ".join(dict.fromkeys(f"{PACKAGES[script]} {PACKAGES['latin']}".strip() for script in lacking))
        raise BadInputError(
            f"--fonts {options.fonts}: too few fonts for {', '.join(lacking)}: found {len(faces)} families, and "
            f"no character that {options.min_fonts} of them draw differently; install fonts, for example "
            f"with: apt-get install -y --no-install-recommends {wanted}"
        )


def contact_sheet(products: list[Product], seed: int, rows: int = 6, columns: int = 3) -> Image.Image:
    """A few random products of each vertical, a row of drawings each, the first drawing's font in their order."""
    cell, wide = SIDE_PX + 2, max(len(product.faces) for product in products)
    verticals = sorted({product.vertical for product in products})
    sheet = Image.new("L", (columns * (wide * cell + cell // 2), len(verticals) * (rows * cell + cell // 2)), 200)
    for number, vertical in enumerate(verticals):
        own = [product for product in products if product.vertical == vertical]
        picked = random.Random(f"sheet {seed}").sample(own, min(len(own), rows * columns))  # noqa: S311
        for place, product in enumerate(picked):
            left = place % columns * (wide * cell + cell // 2)
            top = number * (rows * cell + cell // 2) + place // columns * cell
            for step, face in enumerate(product.faces):
                ink = draw(face, chr(product.code))
                assert ink is not None
                sheet.paste(Image.fromarray(255 - ink), (left + step * cell, top))
    return sheet


def build(options: argparse.Namespace, spread: Spread) -> dict[str, Any]:
    """Survey the fonts, choose, draw, write; returns what the file beside the catalogue says."""
    start = time.perf_counter()
    faces = find_faces(options.fonts)
    drawings = survey_all(faces, options.scripts, options.min_fonts, options.seed, spread)
    found = choose(drawings, faces, fonts_per_product=options.fonts_per_product, min_fonts=options.min_fonts)
    check_found(found, options.scripts, faces, options)
    products = limited(found, options.products_limit, options.seed)
    surveyed = time.perf_counter()
    rows = (row for rows in spread(rows_of, products) for row in rows)
    images = sum(len(product.faces) for product in products)
    report = build_catalogue(rows, options.out, overwrite=options.overwrite, total=images)
    if options.sheet:
        contact_sheet(products, options.seed).save(options.sheet)
    return {
        "catalogue": report.fingerprint,
        "verticals": table(products),
        "families_found": len(faces),
        "characters_looked_at": len(drawings),
        "survey_seconds": round(surveyed - start, 1),
        "draw_and_write_seconds": round(time.perf_counter() - surveyed, 1),
        "options": {key: getattr(options, key) for key in ("products_limit", "fonts_per_product", "min_fonts", "seed")},
        "unicode": unicodedata.unidata_version,
    }


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts"), help="folder with fonts")
    parser.add_argument("--out", type=Path, default=Path(".work/glyphs/glyphs.lance"))
    parser.add_argument("--overwrite", action="store_true", help="replace the catalogue at --out")
    parser.add_argument("--scripts", nargs="+", choices=VERTICALS, default=list(VERTICALS))
    parser.add_argument("--products-limit", type=positive, help="at most so many products of each script")
    parser.add_argument("--fonts-per-product", type=positive, default=8)
    parser.add_argument("--min-fonts", type=positive, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=positive, default=multiprocessing.cpu_count())
    parser.add_argument("--sheet", type=Path, help="also write a contact sheet (PNG)")
    parser.add_argument("--packages", action="store_true", help="print the Debian packages and stop")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; see the module's text."""
    options = parse(arguments)
    if options.packages:
        print(" ".join(" ".join(PACKAGES.values()).split()))
        return 0
    try:
        if options.processes > 1:
            # started before anything else has threads, and without what the parent holds
            with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
                made = build(options, functools.partial(spread_over, pool))
        else:
            made = build(options, functools.partial(spread_over, None))
    except BadInputError as error:
        print(error, file=sys.stderr)
        return 2
    write_atomic(options.out.with_suffix(".json"), json.dumps(made, indent=1) + "\n")
    print("| script | products | images | fonts |\n|---|---|---|---|")
    for row in made["verticals"]:
        print(f"| {row['script']} | {row['products']:,} | {row['images']:,} | {row['fonts']:,} |")
    print(f"survey {made['survey_seconds']} s, drawing and writing {made['draw_and_write_seconds']} s: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
