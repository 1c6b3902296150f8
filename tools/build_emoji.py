"""Build the emoji catalogue that benches measure on: drawings by five artists, from pinned npm packages.

    python tools/build_emoji.py                        install the packages (needs npm), write .work/emoji/emoji.lance
    python tools/build_emoji.py --packages DIR         use an existing node_modules folder
    python tools/build_emoji.py --sheets DIR           also write one contact sheet per artist, for looking at
    python tools/build_emoji.py --verbose              also name every picture left out, and why

Every emoji is a product, its Unicode group the vertical, its subgroup the style, the artist the brand. Left out:

- skin-tone and hair variants, and Unicode's components;
- Fluent's country flags, families and couples: they are not in Microsoft's MIT release, the package took them from
  elsewhere;
- pictures that are blank, filed under the wrong emoji, or the same drawing as another product's picture by the same
  artist (the flags of Norway, Bouvet Island and Svalbard are one drawing; so are the silhouettes of most families
  in Noto and Twemoji), or as another artist's picture of the same product: see `emoji_drawing.without_repeats`;
- products that fewer than two artists draw after that.

The split of a product follows from a hash of its name. An unlabelled image keeps its vertical, style and brand but
has no product, and every image's id is a hash, in whose order the rows lie, so that neither tells the product.

With the versions of Pillow, libwebp and resvg-py that the documents' figures were measured with, the catalogue has the
fingerprint `FINGERPRINT`; the tool says so where it has another.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from emoji_drawing import (
    Pictures,
    contact_sheet,
    encode,
    from_file,
    from_svg,
    without_blanks,
    without_repeats,
    without_singles,
)
from emoji_names import (
    ARTISTS,
    PACKAGES,
    VERTICALS,
    WRONG_PICTURES,
    Emoji,
    datasource_files,
    fluent_files,
    iconify_svgs,
    read_emoji,
)
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.rows import SourceRow

FINGERPRINT = "86bfec0f2fb8809f916647ffb447e52a"

SPLIT_SALT = "univert sample 746"
"""Chosen among a thousand so that small verticals, too, come close to `SHARES`; nothing else was looked at."""

SHARES = {"train": 0.45, "unlabelled": 0.20, "val": 0.10, "test": 0.25}
"""Share of each vertical's products; `unlabelled` is of the train split too."""


def main() -> int:
    """Run the tool; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(".work/emoji/emoji.lance"), help="the catalogue to write")
    parser.add_argument("--packages", type=Path, help="an existing node_modules folder")
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets")
    parser.add_argument("--verbose", action="store_true", help="print every picture left out, and why")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as work:
        packages = options.packages or install(Path(work))
        check_versions(packages)
        emoji = read_emoji(packages)
        left_out: list[str] = []
        pictures = draw(packages, emoji)
        pictures = without_blanks(pictures, left_out.append)
        pictures = without_repeats(pictures, emoji, left_out.append)
        pictures = without_singles(pictures, left_out.append)
    rows = to_rows(pictures, emoji)
    check_rows(rows)
    if options.verbose:
        print("\n".join(left_out))
    print(summary(pictures, emoji, left_out))
    if options.sheets:
        write_sheets(options.sheets, pictures, emoji)
    build_catalogue(rows, options.out, overwrite=True)
    same = Catalogue.open(options.out).fingerprint == FINGERPRINT
    print(f"{options.out}: {'as measured' if same else 'not quite the images that the documents measured'}")
    return 0


def install(work: Path) -> Path:
    """Install the pinned packages with npm and return their `node_modules` folder."""
    pinned = [f"{name}@{version}" for name, version in PACKAGES.items()]
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(work)]
    subprocess.run(["npm", "install", *options, *pinned], check=True, stdout=sys.stderr)
    return work / "node_modules"


def check_versions(packages: Path) -> None:
    """Stop when a package is missing or of another version than the pinned one."""
    for name, version in PACKAGES.items():
        manifest = packages / name / "package.json"
        found = json.loads(manifest.read_text())["version"] if manifest.exists() else "nothing"
        if found != version:
            sys.exit(f"{packages}: {name} must be {version}, found {found}; leave --packages out to install it")


def draw(packages: Path, emoji: list[Emoji]) -> Pictures:
    """Every artist's picture of every emoji, where there is one."""
    pictures: Pictures = {}
    for artist in ARTISTS:
        if artist in ("noto-v1", "emojione-2"):
            svgs = iconify_svgs(packages, artist, emoji)
            found = {codes: from_svg(svg) for codes, svg in svgs.items()}
        elif artist == "fluent-3d":
            found = {codes: from_file(path) for codes, path in fluent_files(packages, emoji).items()}
        else:
            files = datasource_files(packages, artist)
            wanted = [item.codes for item in emoji if item.codes in files]
            found = {codes: from_file(files[codes]) for codes in wanted}
        for item in emoji:
            if item.codes in found and (artist, item.product) not in WRONG_PICTURES:
                pictures[artist, item.product] = found[item.codes]
    return pictures


def part_of(product: str) -> str:
    """The part of the catalogue (a key of `SHARES`) that a product belongs to, by a hash of its name."""
    digest = hashlib.blake2b(f"{SPLIT_SALT}/{product}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    for part, share in SHARES.items():
        if place < share:
            return part
        place -= share
    return "test"


def to_rows(pictures: Pictures, emoji: list[Emoji]) -> list[SourceRow]:
    """The catalogue's rows, in the order of their ids."""
    by_product = {item.product: item for item in emoji}
    rows = []
    for (artist, product), picture in pictures.items():
        part, package = part_of(product), ARTISTS[artist]
        rows.append(
            SourceRow(
                origin=f"{artist}/{product}",
                id=hashlib.blake2b(f"{artist}/{product}".encode(), digest_size=8).hexdigest(),
                vertical=by_product[product].vertical,
                product=None if part == "unlabelled" else product,
                brand=artist,
                style=by_product[product].style,
                split="train" if part == "unlabelled" else part,
                source=f"{package}@{PACKAGES[package]}",
                image=encode(picture),
            )
        )
    return sorted(rows, key=lambda row: str(row.id))


def check_rows(rows: list[SourceRow]) -> None:
    """Stop when the rows break a promise of the catalogue: unique ids, splits disjoint by product, shares kept."""
    assert len({row.id for row in rows}) == len(rows), "two rows share an id"
    places = collections.defaultdict(set)
    for row in rows:
        if row.product is None:
            assert row.split == "train", "an unlabelled image is outside the train split"
        else:
            places[row.product].add((row.vertical, row.split))
            assert part_of(row.product) == row.split, f"{row.product} is in the wrong split"
    assert all(len(found) == 1 for found in places.values()), "a product lies in two splits or verticals"


def summary(pictures: Pictures, emoji: list[Emoji], left_out: list[str]) -> str:
    """Counts to read: images and products by vertical, part and artist, what was left out."""
    lines = [f"{len(pictures)} images"]
    for vertical in VERTICALS.values():
        members = {item.product for item in emoji if item.vertical == vertical}
        own = [key for key in pictures if key[1] in members]
        images = collections.Counter(part_of(product) for _, product in own)
        products = collections.Counter(part_of(product) for product in {product for _, product in own})
        artists = collections.Counter(artist for artist, _ in own)
        parts = ", ".join(f"{part} {images[part]} of {products[part]}" for part in SHARES)
        lines.append(f"{vertical}: {len(own)} images of {sum(products.values())} products ({parts})")
        lines.append("    " + ", ".join(f"{artist} {artists[artist]}" for artist in ARTISTS))
    reasons = collections.Counter(line.split(":")[0] for line in left_out)
    lines.append("left out: " + ", ".join(f"{count} {reason}" for reason, count in reasons.items()))
    return "\n".join(lines)


def write_sheets(folder: Path, pictures: Pictures, emoji: list[Emoji]) -> None:
    """One contact sheet per artist, the pictures in Unicode's order."""
    folder.mkdir(parents=True, exist_ok=True)
    for artist in ARTISTS:
        own = [pictures[artist, item.product] for item in emoji if (artist, item.product) in pictures]
        contact_sheet(own).save(folder / f"{artist}.png")


if __name__ == "__main__":
    sys.exit(main())
