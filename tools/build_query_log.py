"""Make an image-search log whose truth is known, from the home sample's names and pictures.

    python tools/build_query_log.py OUT [--queries 200000] [--seed 0]

Writes into OUT:
- `log.parquet`: query, count, and the 30 pictures it returned, each with id, rank and title;
- `pictures.parquet`: those pictures, a source of `univert catalogue build`;
- `truth.parquet`: what each query means, and what each of its pictures is, in the log's order;
- `truth.json`: the seed, the shares, and `held_out`: two languages, and the products whose names are left out;
- `names-known.parquet`: the names table without them, which is what a query parser may see.

What a query is follows from the seed and its number. Memory does not grow with the log.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent))

from query_log.held_out import HeldOut, hold_out
from query_log.pictures import DAMAGED, NEAR, copy_id, read_originals, write_pictures
from query_log.texts import OFF_TOPIC_SHARE, Typed, Typist, truth_of
from univert.core.terminal import progress_bar
from univert.data.names import read_names
from univert.data.sample import NAMES_PATH

RESULTS = 30
SHARES = {"right": 0.45, "near": 0.10, "damaged": 0.15, "same vertical": 0.17, "other vertical": 0.13}
"""What the pictures of a query are, where enough are there: right ones, copies nearly the same, damaged ones (which
show the right product), other products of its vertical, and others."""

SPAM_SHARE = 0.05
"""Share of the wrong pictures whose title is the query."""
ZIPF = 1.0
_AT_ONCE = 2_000

LOG = pa.schema(
    {
        "query": pa.string(),
        "count": pa.int64(),
        "results": pa.list_(pa.struct([("id", pa.string()), ("rank", pa.int16()), ("title", pa.string())])),
    }
)
TRUTH = pa.schema(
    [(name, pa.string()) for name in ("query", "kind", "language", "product", "vertical", "name", "colour", "brand")]
    + [("held_out", pa.bool_()), ("results", pa.list_(pa.string()))]
)
"""`results` says of each picture in the log's order: `right`, `near`, a kind of damage, or which vertical it is of."""

Picture = tuple[str, str | None, str]
"""An original's id, how it is changed, and its product."""


class Shelf:
    """The pictures that a query may return."""

    def __init__(self, originals: pa.Table, typist: Typist) -> None:
        columns = (originals[name].to_pylist() for name in ("id", "product", "vertical"))
        self.verticals: dict[str, str] = {}
        self._of_product: dict[str, list[str]] = defaultdict(list)
        self._of_vertical: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for name, product, vertical in zip(*columns, strict=True):
            self.verticals[product] = vertical
            self._of_product[product].append(name)
            self._of_vertical[vertical].append((name, product))
        self._all = [pair for pairs in self._of_vertical.values() for pair in pairs]
        self._namesakes = typist.namesakes()

    def pick(self, product: str | None, rng: random.Random) -> list[tuple[Picture, str]]:
        """Pictures for a query with what each is, the likelier ones first, no picture twice."""
        if product is None:
            return [((name, None, of), "other vertical") for name, of in rng.sample(self._all, RESULTS)]
        same = self._namesakes[product]
        vertical = self.verticals[product]
        right = [(name, other) for other in same for name in self._of_product[other]]
        rng.shuffle(right)
        some = {kind: round(RESULTS * share) for kind, share in SHARES.items()}
        found: list[tuple[Picture, str]] = [((name, None, of), "right") for name, of in right[: some["right"]]]
        copies = some["near"] + some["right"] - len(found)  # more of them where originals are few
        shown = right[: some["right"]]
        found += [((name, NEAR, of), NEAR) for name, of in rng.sample(shown, min(len(shown), copies))]
        damage = [((name, kind, of), kind) for name, of in right for kind in DAMAGED]
        found += rng.sample(damage, min(len(damage), some["damaged"]))
        inside = [pair for pair in self._of_vertical[vertical] if pair[1] not in same]
        outside = [pair for pair in rng.sample(self._all, 3 * RESULTS) if self.verticals[pair[1]] != vertical]
        wrong = min(RESULTS - len(found) - some["other vertical"], len(inside))
        found += [((name, None, of), "same vertical") for name, of in rng.sample(inside, wrong)]
        found += [((name, None, of), "other vertical") for name, of in outside[: RESULTS - len(found)]]
        return sorted(found, key=lambda one: rng.random() + (0 if one[1] in ("right", NEAR) else 0.5))


def make_row(
    number: int, seed: int, typist: Typist, shelf: Shelf, held_out: HeldOut
) -> tuple[dict[str, Any], dict[str, Any], list[Picture]]:
    """One row of the log, its truth, and the pictures it returns."""
    rng = random.Random(f"{seed}/{number}")  # noqa: S311
    typed = typist.type(rng)
    found = shelf.pick(typed.product, rng)
    results = [
        {
            "id": name if change is None else copy_id(name, change),
            "rank": rank,
            "title": typed.query if is_spam(what, rng) else typist.title(product, rng),
        }
        for rank, ((name, change, product), what) in enumerate(found, start=1)
    ]
    truth = truth_of(typed, shelf.verticals)
    truth |= {"held_out": is_held_out(typed, held_out), "results": [what for _, what in found]}
    log = {"query": typed.query, "results": results}
    return log, truth, [picture for picture, _ in found]


def is_spam(what: str, rng: random.Random) -> bool:
    """Whether a picture's title repeats the query though it shows something else."""
    return what.endswith("vertical") and rng.random() < SPAM_SHARE


def is_held_out(typed: Typed, held_out: HeldOut) -> bool:
    """Whether a parser that keeps to `names-known.parquet` has not seen this name."""
    return typed.product is not None and (typed.language in held_out.languages or typed.product in held_out.products)


def build(out: Path, queries: int, seed: int) -> None:
    """Write all files."""
    out.mkdir(parents=True, exist_ok=True)
    names = list(read_names(NAMES_PATH))
    held_out = hold_out(names)
    originals, brands = read_originals()
    typist = Typist(names, brands)
    shelf = Shelf(originals, typist)
    used: set[tuple[str, str | None]] = set()
    with (
        pq.ParquetWriter(out / "log.parquet", LOG, compression="zstd") as log_file,
        pq.ParquetWriter(out / "truth.parquet", TRUTH, compression="zstd") as truth_file,
        progress_bar("Writing queries", queries, unit="queries") as advance,
    ):
        for start in range(0, queries, _AT_ONCE):
            logs, truths = [], []
            for number in range(start, min(start + _AT_ONCE, queries)):
                log, truth, pictures = make_row(number, seed, typist, shelf, held_out)
                logs.append(log | {"count": max(1, round(queries / (number + 1) ** ZIPF))})
                truths.append(truth)
                used.update((name, change) for name, change, _ in pictures)
            log_file.write_table(pa.Table.from_pylist(logs, schema=LOG))
            truth_file.write_table(pa.Table.from_pylist(truths, schema=TRUTH))
            advance(len(logs))
    count = write_pictures(out / "pictures.parquet", originals, used)
    known = pq.read_table(NAMES_PATH).filter(pa.array([held_out.knows(name) for name in names]))
    pq.write_table(known, out / "names-known.parquet", compression="zstd")
    told = {
        "queries": queries, "seed": seed, "off_topic": OFF_TOPIC_SHARE, "results": SHARES, "pictures": count,
        "held_out": {"languages": held_out.languages, "products": sorted(held_out.products)},
    }  # fmt: skip
    (out / "truth.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    print(f"{queries:,} queries, {count:,} pictures; left out: {', '.join(held_out.languages)} and all names of "
          f"{len(held_out.products)} products")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--queries", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    build(given.out, given.queries, given.seed)


if __name__ == "__main__":
    main()
