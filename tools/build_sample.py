"""Make the bundled sample, `src/univert/data/sample/sample.parquet`, from pinned npm packages.

    python tools/build_sample.py                        install the packages into a work folder, write the sample
    python tools/build_sample.py --packages DIR         use an existing node_modules folder
    python tools/build_sample.py --check                rebuild and compare with the committed file; write nothing
    python tools/build_sample.py --sheets DIR           also write one contact sheet per artist, for looking at
    python tools/build_sample.py --verbose              also name every picture left out, and why

Every emoji is a product, its Unicode group the vertical, its subgroup the style, the artist the brand. Left out:

- skin-tone and hair variants, and Unicode's components;
- Fluent's country flags, families and couples: they are not in Microsoft's MIT release, the package took them from
  elsewhere;
- pictures that are blank, filed under the wrong emoji, or the same drawing as another product's picture by the same
  artist (the flags of Norway, Bouvet Island and Svalbard are one drawing; so are the silhouettes of most families
  in Noto and Twemoji), or as another artist's picture of the same product: see `sample_images.without_repeats`;
- products that fewer than two artists draw after that.

The split of a product follows from a hash of its name. An unlabelled image keeps its vertical, style and brand but
has no product, and every image's id is a hash, in whose order the rows lie, so that neither tells the product.

The file is the same, byte for byte, on every run with the versions of Pillow, libwebp, resvg-py and PyArrow that its
metadata names; `--check` says so when it was made with others.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import importlib.metadata
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import features

from sample_emoji import (
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
from sample_images import (
    Pictures,
    contact_sheet,
    encode,
    from_file,
    from_svg,
    without_blanks,
    without_repeats,
    without_singles,
)

SAMPLE = Path(__file__).parents[1] / "src" / "univert" / "data" / "sample" / "sample.parquet"
LARGEST_FILE_BYTES = 12_000_000

SPLIT_SALT = "univert sample 746"
"""Chosen among a thousand so that small verticals, too, come close to `SHARES`; nothing else was looked at."""

SHARES = {"train": 0.45, "unlabelled": 0.20, "val": 0.10, "test": 0.25}
"""Share of each vertical's products; `unlabelled` is of the train split too."""

SCHEMA = pa.schema(
    [
        pa.field(name, pa.string(), nullable=name == "product")
        for name in ("id", "vertical", "product", "brand", "style", "split", "source")
    ]
    + [pa.field("image", pa.binary(), nullable=False)]
)


def main() -> int:
    """Run the tool; see the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, help="an existing node_modules folder")
    parser.add_argument("--check", action="store_true", help="compare a rebuild with the committed file")
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
    table = to_table(pictures, emoji)
    check_rows(table)
    content = to_parquet(table)
    if len(content) > LARGEST_FILE_BYTES:
        sys.exit(f"the sample would be {len(content)} bytes; at most {LARGEST_FILE_BYTES} are allowed")
    if options.verbose:
        print("\n".join(left_out))
    print(summary(pictures, emoji, content, left_out))
    if options.sheets:
        write_sheets(options.sheets, pictures, emoji)
    if options.check:
        return check_committed(table, content)
    SAMPLE.parent.mkdir(parents=True, exist_ok=True)
    SAMPLE.write_bytes(content)
    print(f"wrote {SAMPLE}")
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
    """The part of the sample (a key of `SHARES`) that a product belongs to, by a hash of its name."""
    digest = hashlib.blake2b(f"{SPLIT_SALT}/{product}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    for part, share in SHARES.items():
        if place < share:
            return part
        place -= share
    return "test"


def to_table(pictures: Pictures, emoji: list[Emoji]) -> pa.Table:
    """The sample's rows, in the order of their ids."""
    by_product = {item.product: item for item in emoji}
    rows = []
    for (artist, product), picture in pictures.items():
        part = part_of(product)
        package = ARTISTS[artist]
        rows.append(
            {
                "id": hashlib.blake2b(f"{artist}/{product}".encode(), digest_size=8).hexdigest(),
                "vertical": by_product[product].vertical,
                "product": None if part == "unlabelled" else product,
                "brand": artist,
                "style": by_product[product].style,
                "split": "train" if part == "unlabelled" else part,
                "source": f"{package}@{PACKAGES[package]}",
                "image": encode(picture),
            }
        )
    rows.sort(key=lambda row: str(row["id"]))
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def check_rows(table: pa.Table) -> None:
    """Stop when the rows break a promise of the sample: unique ids, splits disjoint by product, shares kept."""
    rows = table.drop(["image"]).to_pylist()
    assert len({row["id"] for row in rows}) == len(rows), "two rows share an id"
    splits = collections.defaultdict(set)
    verticals = collections.defaultdict(set)
    for row in rows:
        if row["product"] is None:
            assert row["split"] == "train", "an unlabelled image is outside the train split"
        else:
            splits[row["product"]].add(row["split"])
            verticals[row["product"]].add(row["vertical"])
            assert part_of(row["product"]) == row["split"], f"{row['product']} is in the wrong split"
    assert all(len(found) == 1 for found in splits.values()), "a product lies in two splits"
    assert all(len(found) == 1 for found in verticals.values()), "a product lies in two verticals"


def to_parquet(table: pa.Table) -> bytes:
    """The table as a Parquet file that names the versions it was made with."""
    buffer = io.BytesIO()
    compression = {name: "NONE" if name == "image" else "ZSTD" for name in table.column_names}
    pq.write_table(
        table.replace_schema_metadata({"made_with": made_with()}),
        buffer,
        compression=compression,
        use_dictionary=["vertical", "brand", "style", "split", "source"],
        write_statistics=False,
        row_group_size=1000,
    )
    return buffer.getvalue()


def made_with() -> str:
    """The versions that the bytes of the file depend on."""
    versions = {name: importlib.metadata.version(name) for name in ("pillow", "pyarrow", "resvg-py")}
    versions["libwebp"] = features.version_module("webp") or "unknown"
    return ", ".join(f"{name} {versions[name]}" for name in sorted(versions))


def summary(pictures: Pictures, emoji: list[Emoji], content: bytes, left_out: list[str]) -> str:
    """Counts to read: images and products by vertical, part and artist, the size, what was left out."""
    lines = [f"{len(pictures)} images, {len(content) / 1e6:.2f} MB, made with {made_with()}"]
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


def check_committed(table: pa.Table, content: bytes) -> int:
    """Compare with the committed file; print what differs. Returns the exit code."""
    if not SAMPLE.exists():
        print(f"{SAMPLE} is missing")
        return 1
    if SAMPLE.read_bytes() == content:
        print("the committed sample equals this rebuild, byte for byte")
        return 0
    committed = pq.read_table(SAMPLE)
    theirs = (committed.schema.metadata or {}).get(b"made_with", b"unknown versions").decode()
    print(f"the committed sample differs from this rebuild; it was made with {theirs}, this one with {made_with()}")
    if committed.column_names != table.column_names or committed.num_rows != table.num_rows:
        print(f"rows or columns differ: {committed.shape} committed, {table.shape} rebuilt")
    else:
        different = [name for name in table.column_names if not committed[name].equals(table[name])]
        print(f"columns that differ: {', '.join(different) or 'none'}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
