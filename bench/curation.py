"""`univert curate` on a log whose truth is known: how right what it keeps is, how long it takes, and its memory.

    python tools/build_query_log.py .work/log
    python bench/curation.py .work/log HOME MODEL [--out .work/curation]

HOME is the catalogue of the home sample, MODEL what embeds the pictures. The log's pictures enter a catalogue without
vertical and product. The command runs in a process of its own; it is given the names that the log does not leave out.
Started again, it goes on where it was, and then no time is told. Writes bench/results/curation.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common import commit, cpu_name
from univert.core.files import write_atomic
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.names import read_names
from univert.data.readers.manifest import read_manifest
from univert.data.sample import NAMES_PATH

RESULT = Path(__file__).parent / "results" / "curation.md"
RIGHT = ("right", "near")
KEPT_SHARE = 0.7
_STAGE = re.compile(r"^(\S+ \S+) (.+?): ")


def pictures_catalogue(log: Path, out: Path) -> Path:
    """The log's pictures, of which nothing is told."""
    catalogue, manifest = out / "pictures.lance", out / "pictures.parquet"
    if not catalogue.exists():
        out.mkdir(parents=True, exist_ok=True)
        table = pq.read_table(log / "pictures.parquet", columns=["id", "image"])
        for name, value in (("vertical", "unknown"), ("split", "train")):
            table = table.append_column(name, pa.repeat(value, len(table)))
        pq.write_table(table, manifest, row_group_size=1_000)
        build_catalogue(read_manifest(manifest), catalogue)
        manifest.unlink()
    return catalogue


def run(options: argparse.Namespace, pictures: Path, out: Path) -> tuple[float, float]:
    """Seconds, and gigabytes of memory at the most."""
    command = [sys.executable, "-c", "import univert.cli; univert.cli.main()", "curate", options.log / "log.parquet"]
    given = [pictures, "--out", out, "--model", options.model, "--names", options.log / "names-known.parquet"]
    began = time.perf_counter()
    subprocess.run([*map(str, command), *map(str, given), "--catalogue", str(options.home)], check=True)
    peak_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return time.perf_counter() - began, peak_kb / 1e6


def stage_seconds(out: Path) -> dict[str, float]:
    """How long each stage took, from the lines of progress: from its first line to that of the next stage."""
    first: dict[str, datetime] = {}
    last = None
    for line in (out / "progress.log").read_text(encoding="utf-8").splitlines():
        if found := _STAGE.match(line):
            last = datetime.fromisoformat(found[1])
            first.setdefault(found[2], last)
    names, times = list(first), [*first.values(), last]
    return {name: (times[k + 1] - times[k]).total_seconds() for k, name in enumerate(names)}  # type: ignore[operator]


def results_table(log: Path, out: Path, home: Path) -> Iterator[str]:
    """How many of the pictures are right, before and after each stage, and where 70% of the right ones are kept."""
    truth = pq.read_table(log / "truth.parquet", columns=["results", "kind"]).to_pylist()
    logged = pq.read_table(log / "log.parquet", columns=["results"])["results"]
    rated = pq.read_table(sorted((out / "ratings").glob("*.parquet")))
    numbers, ids = rated["number"].to_numpy(), rated["id"].to_pylist()
    said: list[str] = []
    number_before, what_of = -1, dict[str, str]()
    for number, name in zip(numbers.tolist(), ids, strict=True):
        if number != number_before:
            shown = [one["id"] for one in logged[number].as_py()]
            what_of, number_before = dict(zip(shown, truth[number]["results"], strict=True)), number
        said.append(what_of[name])
    what, stage = np.array(said), np.array(rated["stage"].to_pylist())
    right, kept = np.isin(what, RIGHT), rated["kept"].to_numpy(zero_copy_only=False)
    probability = np.nan_to_num(rated["probability"].to_numpy(zero_copy_only=False))
    yield "| pictures of queries that were given a vertical | count | right | of the right ones |\n|---|---|---|---|"
    left = np.ones(len(right), bool)
    for title, leaves in (("all", ()), ("good pixels", ("pixels",)), ("each once a query", ("repeated",))):
        left &= ~np.isin(stage, leaves)
        yield row(title, left, right)
    once = ~np.isin(stage, ("repeated",))
    share = f"{100 * KEPT_SHARE:.0f}% of the right ones"
    for title, among in ((share, once), (f"{share} with good pixels", left)):
        least = np.quantile(np.where(left, probability, 0)[right & among], 1 - KEPT_SHARE)
        yield row(f"{title}, most probable first", left & (probability >= least), right, among)
    yield row("kept by the default", kept, right, once)
    yield ""
    yield "| pictures of products | count | right | kept | right | of the right ones |\n|---|---|---|---|---|---|"
    split = np.array(split_of_pictures(log, home))[pc.index_in(rated["id"], picture_ids(log)).to_numpy()]
    for title in ("train", "val", "test"):
        here = split == title
        shares = [100 * right[here].mean(), 100 * right[here & kept].mean(), 100 * kept[here & once & right].mean()]
        yield "| {} | {:,} | {:.1f}% | {:,} | {:.1f}% | {:.0f}% |".format(
            title, here.sum(), shares[0], (here & kept).sum(), *shares[1:]
        )
    yield ""
    yield "| what it is | count | out for its pixels | as repeated | for the match | kept |\n|---|---|---|---|---|---|"
    for name, count in Counter(said).most_common():
        here = what == name
        shares = [
            here & (stage == "pixels"),
            here & (stage == "repeated"),
            here & (stage == "match") & ~kept,
            here & kept,
        ]
        yield f"| {name} | {count:,} | " + " | ".join(f"{100 * one.sum() / count:.0f}%" for one in shares) + " |"


def picture_ids(log: Path) -> pa.Array:
    return pq.read_table(log / "pictures.parquet", columns=["id"])["id"].combine_chunks()


def split_of_pictures(log: Path, home: Path) -> list[str]:
    """The split of the product of each picture: words are learned from train, the match from val."""
    catalogue = Catalogue.open(home)
    split = dict(zip(catalogue.column("product"), catalogue.column("split"), strict=True))
    products = pq.read_table(log / "pictures.parquet", columns=["product"])["product"].to_pylist()
    return [split.get(product, "none") for product in products]


def row(title: str, left: np.ndarray, right: np.ndarray, once: np.ndarray | None = None) -> str:
    """Count, share of right ones, share of all right ones; of those that are not repeated where `once` says which."""
    of_all = right if once is None else right & once
    found = 100 * (right & left).sum() / of_all.sum()
    return f"| {title} | {left.sum():,} | {100 * right[left].mean():.1f}% | {found:.0f}% |"


def triplets_table(log: Path, out: Path) -> Iterator[str]:
    """Whether positives are of the anchor's product, and negatives of another."""
    truth = pq.read_table(log / "pictures.parquet", columns=["id", "product", "vertical"]).to_pylist()
    product = {one["id"]: one["product"] for one in truth}
    vertical = {one["id"]: one["vertical"] for one in truth}
    namesakes = {one.product: one.name.casefold() for one in read_names(NAMES_PATH) if one.language == "en"}
    with (out / "triplets.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    same = [product[one["anchor"]] == product[one["positive"]] for one in rows]
    named = [namesakes.get(product[one["anchor"]]) == namesakes.get(product[one["positive"]]) for one in rows]
    false = [product[one["anchor"]] == product[one["negative"]] for one in rows]
    inside = [vertical[one["anchor"]] == vertical[one["negative"]] for one in rows]
    yield f"{len(rows):,} triplets in {len({one['vertical'] for one in rows})} verticals, of "
    yield f"{len({one['query'] for one in rows}):,} queries. Of the positives, {100 * np.mean(same):.1f}% are of the"
    yield f"anchor's product and {100 * np.mean(named):.1f}% of one with the same name; of the negatives,"
    yield f"{100 * np.mean(false):.2f}% are of the anchor's product, and {100 * np.mean(inside):.1f}% of its vertical."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("log", "home", "model"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--out", type=Path, default=Path(".work/curation"))
    options = parser.parse_args()
    pictures, out = pictures_catalogue(options.log, options.out), options.out / "curated"
    fresh = not out.exists()
    seconds, peak_gb = run(options, pictures, out)
    told = json.loads((options.log / "truth.json").read_text())
    lines = [
        "# Curation of a query log",
        "",
        HEAD.format(**told),
        "",
        *results_table(options.log, out, options.home),
        "",
    ]
    lines += ["## Triplets", "", *triplets_table(options.log, out), ""]
    if fresh:
        lines += ["## Time and memory", "", f"{seconds / 60:.1f} minutes, {peak_gb:.1f} GB at the most.", ""]
        lines += ["| from the first line of progress of | seconds |\n|---|---|"]
        lines += [f"| {name} | {spent:.0f} |" for name, spent in stage_seconds(out).items()]
    lines += ["", f"Made by `python bench/curation.py LOG HOME MODEL` at {commit('src', 'bench')}, on {cpu_name()}."]
    write_atomic(RESULT, "\n".join(lines) + "\n")
    print(*lines, sep="\n")


HEAD = """Home sample's log of {queries:,} queries with 30 pictures each, {pictures:,} of them different. Right are
pictures of a product that the query names, and copies that are nearly the same; damaged copies and pictures of other
products are wrong. Copies that repeat a picture of the same query count as neither kept nor lost."""

if __name__ == "__main__":
    main()
