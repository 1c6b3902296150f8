"""A model of the home sample that sees no product label: from image-search triplets alone, then from clean ones.

    python tools/build_query_log.py .work/log --queries 20000
    python bench/search_triplets.py .work/log HOME [--seeds 0] [--out .work/search-triplets]

The log is cut down to pictures of training products, of which nothing is told, and `univert.curation.curate` makes
triplets with the untrained network. What words look like it learns from the named products of the val split alone. A
model of all verticals, the one group that
the main job makes of the home sample, learns from these triplets alone. With it the log is curated once more, and of
the triplets some are rated by simulated raters, each wrong in one answer of ten; from the clean ones the model learns
on, and is kept if it is not worse on the val split. Beside it: the untrained network, and models that learn from all
product labels by the triplet loss and by Proxy-NCA. Photo to product on test, on which nothing is chosen. Writes
bench/results/search-triplets.md. Started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from common import commit, cpu_name, per_cent
from univert.core.allocator import reuse_freed_memory
from univert.core.config import to_plain
from univert.core.files import write_atomic
from univert.core.run import Run
from univert.curation.agreement import Agreement, triplets_csv
from univert.curation.curate import CurateConfig, curate
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.ratings import Answer, Ratings
from univert.data.readers.built import read_catalogue
from univert.data.readers.manifest import read_manifest
from univert.data.rows import SourceRow
from univert.data.triplets import ROLES, CleanTriplets, TripletRow, read_clean_triplets, read_triplet_rows
from univert.metrics.bootstrap import bootstrap_interval
from univert.metrics.per_query import query_outcomes
from univert.metrics.ranking import QueryOutcome
from univert.models.embedder import Embedder
from univert.training.evaluation import TestSplit
from univert.training.label_config import LabelLoopConfig, SpecialistsConfig
from univert.training.label_training import label_job
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.triplet_config import TripletLoopConfig, TripletsConfig
from univert.training.triplet_training import compare_on_split, losses_of, triplet_job

RESULT = Path(__file__).parent / "results" / "search-triplets.md"
IMAGE_SIZE_PX = 128
RATED_A_VERTICAL = 300
RATERS = 3
ERROR = 0.1
LEARN = TripletsConfig(loop=TripletLoopConfig(epochs=3, min_steps=60, base_network_learning_rate=1e-4))
"""Held to the start as in every fine-tuning: without, the triplet loss collapses on negatives that were semi-hard."""
TUNE = TripletsConfig(loop=TripletLoopConfig(epochs=6, min_steps=60, base_network_learning_rate=1e-4))


def train_log(log: Path, home: Catalogue, out: Path) -> tuple[Path, Catalogue]:
    """The log without pictures of other products than those of the train split; and a catalogue of what is left."""
    path, pictures = out / "log.parquet", out / "pictures.lance"
    if not pictures.exists():
        out.mkdir(parents=True, exist_ok=True)
        splits = dict(zip(home.column("product"), home.column("split"), strict=True))
        table = pq.read_table(log / "pictures.parquet", columns=["id", "product", "image"])
        table = table.filter(pa.array([splits[product] == "train" for product in table["product"].to_pylist()]))
        known = set(table["id"].to_pylist())
        rows = pq.read_table(log / "log.parquet")
        left = [[one for one in results if one["id"] in known] for results in rows["results"].to_pylist()]
        pq.write_table(rows.set_column(2, "results", pa.array(left, rows["results"].type)), path)
        table = table.drop_columns("product")
        for name, value in (("vertical", "unknown"), ("split", "train")):
            table = table.append_column(name, pa.repeat(value, len(table)))
        pq.write_table(table, out / "pictures.parquet", row_group_size=1_000)
        build_catalogue(read_manifest(out / "pictures.parquet"), pictures)
    return path, Catalogue.open(pictures)


def words_catalogue(home: Catalogue, out: Path) -> Catalogue:
    """The products of the val split, of which half teach words and half the match; none of train is among them."""
    if not out.exists():
        rows = (row for row in read_catalogue(home.path) if isinstance(row, SourceRow))
        val = (row for row in rows if row.split == "val" and row.product is not None)
        build_catalogue(
            (replace(row, split=("train", "val")[zlib.crc32(str(row.product).encode()) % 2]) for row in val), out
        )
    return Catalogue.open(out)


def curated(log: Path, options: argparse.Namespace, model: Embedder, out: Path, *, seed: int) -> list[TripletRow]:
    """Triplets of the log's pictures."""
    home = Catalogue.open(options.home)
    path, pictures = train_log(log, home, options.out)
    words = words_catalogue(home, options.out / "words.lance")
    curate(path, pictures, out, model=model, names=log / "names-known.parquet", catalogue=words,
           config=CurateConfig(seed=seed))  # fmt: skip
    return [row for row in read_triplet_rows(out / "triplets.csv") if isinstance(row, TripletRow)]


def learning_catalogue(home: Catalogue, pictures: Catalogue, triplets: Path, out: Path) -> Catalogue:
    """The home sample's val and test images as they are, and the pictures of the triplets in place of train."""
    if not out.exists():
        vertical = verticals_of(triplets)
        measured = (row for row in read_catalogue(home.path) if isinstance(row, SourceRow) and row.split != "train")
        learned = (
            replace(row, vertical=vertical[row.id])
            for row in read_catalogue(pictures.path)
            if isinstance(row, SourceRow) and row.id in vertical
        )
        build_catalogue(itertools.chain(measured, learned), out)
    return Catalogue.open(out)


def verticals_of(triplets: Path) -> dict[str, str]:
    """The vertical of each picture of a table of triplets."""
    with triplets.open(encoding="utf-8", newline="") as file:
        return {row[role]: row["vertical"] for row in csv.DictReader(file) for role in ROLES}


def rated(rows: list[TripletRow], verticals: dict[str, str], product: dict[str, str], path: Path, seed: int) -> int:
    """Clean triplets of simulated raters into a file; how many."""
    rng = np.random.default_rng(seed)
    chosen: dict[str, list[tuple[str, str, str, str]]] = {}
    for place in rng.permutation(len(rows)).tolist():
        anchor, positive, negative = map(str, rows[place].ids)
        chosen.setdefault(verticals[anchor], []).append((anchor, positive, negative, verticals[anchor]))
    some = [one for them in chosen.values() for one in them[:RATED_A_VERTICAL]]
    path.unlink(missing_ok=True)
    with Ratings(path, create=True) as ratings:
        ratings.choose(raters=RATERS, gold_share=0)
        ratings.add(some)
        answers = []
        for one in ratings.triplets():
            truth = product[one.anchor] == product[one.positive], product[one.anchor] != product[one.negative]
            for rater in range(RATERS):
                same, different = ("yes" if right != (rng.random() < ERROR) else "no" for right in truth)
                answers.append(
                    Answer(
                        triplet=one.id, rater=f"rater {rater}", same=same, different=different, seconds=None, time_s=0
                    )
                )
        ratings.put(answers)
        clean = Agreement(ratings).clean(0.95)
    write_atomic(path.with_suffix(".csv"), triplets_csv(clean))
    return len(clean)


def learned(
    context: RunContext, name: str, start: Embedder, triplets: CleanTriplets, config: TripletsConfig
) -> Embedder:
    """A model that went on from another with some triplets."""
    inputs = {"start": start.fingerprint, "triplets": triplets.fingerprint, **to_plain(config)}
    return context.stages.train(name, inputs, lambda: triplet_job(context, start, triplets, config)).embedder


def labelled(context: RunContext, loss: Literal["triplet", "proxy-nca"], images_per_product: int) -> Embedder:
    """A model of all verticals from all product labels."""
    config = SpecialistsConfig(loss=loss, loop=LabelLoopConfig(images_per_product=images_per_product))
    among = np.ones(len(context.images.products), bool)
    folder = context.stages.work_folder(loss)
    return context.stages.train(
        loss, to_plain(config), lambda: label_job(context, config, among, folder=folder)
    ).embedder


def outcomes(context: RunContext, model: Embedder) -> tuple[QueryOutcome, QueryOutcome]:
    """Of the test queries, merged and within their verticals."""
    test = TestSplit(context)
    vectors = context.features.source.embed_all(model, test.positions)
    merged, within = (
        query_outcomes(vectors, test.products, test.verticals, routed=routed, queries=test.queries).merged
        for routed in (False, True)
    )
    return merged, within


def one_seed(options: argparse.Namespace, seed: int) -> tuple[dict[str, tuple[QueryOutcome, QueryOutcome]], str]:
    """All models of one seed, and what became of the triplets, in words."""
    out, home = options.out / f"seed-{seed}", Catalogue.open(options.home)
    recipe = Recipe(seed=seed, model=replace(Recipe().model, image_size_px=IMAGE_SIZE_PX))
    of_labels = RunContext(Run(out / "labelled"), home, recipe)
    base = of_labels.features.base
    curated(options.log, options, base, options.out / "curated", seed=0)
    first = options.out / "curated" / "triplets.csv"
    catalogue = learning_catalogue(
        home, Catalogue.open(options.out / "pictures.lance"), first, options.out / "learned.lance"
    )
    context = RunContext(Run(out / "triplets"), catalogue, recipe)
    search = read_clean_triplets(first, catalogue)
    from_search = learned(context, "search", context.new_embedder(), search, LEARN)
    rows = curated(options.log, options, from_search, out / "curated", seed=seed)
    verticals = verticals_of(out / "curated" / "triplets.csv")
    product = dict(
        zip(
            *(pq.read_table(options.log / "pictures.parquet")[name].to_pylist() for name in ("id", "product")),
            strict=True,
        )
    )
    rows = [row for row in rows if set(row.ids) <= set(catalogue.column("id"))]
    count = rated(rows, verticals, product, out / "rated", seed)
    clean = read_clean_triplets(out / "rated.csv", catalogue, on_bad="skip")
    tuned = learned(context, "clean", from_search, clean, TUNE)
    comparison = compare_on_split(context, from_search, tuned, TUNE, "val")
    lost = [] if comparison is None else losses_of(comparison, TUNE)
    said = (
        f"seed {seed}: {len(search):,} image-search triplets, of whose positives "
        f"{100 * right_share(first, product):.1f}% are right; {count:,} clean ones, of them "
        f"{100 * right_share(out / 'rated.csv', product):.1f}%; the fine-tuned model is "
        f"{'not worse on val' if not lost else 'worse on val: ' + '; '.join(lost)}"
    )
    models = {
        "untrained": (context, context.new_embedder()),
        "image-search triplets alone": (context, from_search),
        "fine-tuned by clean triplets": (context, tuned),
        "all product labels, triplet loss": (of_labels, labelled(of_labels, "triplet", 4)),
        "all product labels, Proxy-NCA": (of_labels, labelled(of_labels, "proxy-nca", 2)),
    }
    return {title: outcomes(*one) for title, one in models.items()}, said


def right_share(triplets: Path, product: dict[str, str]) -> float:
    rows = [row.ids for row in read_triplet_rows(triplets) if isinstance(row, TripletRow)]
    return float(np.mean([product[str(anchor)] == product[str(positive)] for anchor, positive, _ in rows]))


def table(found: list[dict[str, tuple[QueryOutcome, QueryOutcome]]]) -> Iterator[str]:
    yield "| model | R@1 within | MAP@R within | R@1 merged | MAP@R merged |\n|---|---|---|---|---|"
    for title in found[0]:
        cells = [
            per_cent([float(np.mean(values)) for run in found for values in [measure(run[title][side])]])
            for side in (1, 0)
            for measure in (lambda one: one.hits(1), lambda one: one.average_precision_at_r)
        ]
        yield f"| {title} | " + " | ".join(cells) + " |"
    yield ""
    pairs = itertools.combinations(found[0], 2)
    for before, after in pairs:
        for side, where in ((1, "within"), (0, "merged")):
            difference = np.mean(
                [run[after][side].hits(1).astype(float) - run[before][side].hits(1) for run in found], 0
            )
            low, high = bootstrap_interval(difference, found[0][before][side].products, seed=0, resamples=5000)
            interval = f"[{100 * low:+.1f}, {100 * high:+.1f}]"
            yield f"- {after} less {before}, R@1 {where}: {100 * difference.mean():+.1f} {interval}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument("home", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path(".work/search-triplets"))
    options = parser.parse_args()
    reuse_freed_memory()
    runs = [one_seed(options, seed) for seed in options.seeds]
    lines = ["# From image-search triplets to clean ones", "", HEAD, "", *table([found for found, _ in runs]), ""]
    lines += [f"- {said}" for _, said in runs]
    lines += ["", f"Made by `python bench/search_triplets.py LOG HOME --seeds {' '.join(map(str, options.seeds))}` at "]
    lines[-1] += f"{commit('src', 'bench')}, on {cpu_name()}."
    write_atomic(RESULT, "\n".join(lines) + "\n")
    print(*lines, sep="\n")


HEAD = f"""Home sample, {IMAGE_SIZE_PX} px, photo to product on test, per cent; the last two blocks learn. One model of
all verticals. No product label of a training picture is seen but where it says so: words are learned from the named
products of val; {RATERS} simulated raters who are
wrong in {100 * ERROR:.0f}% of their answers rate at most {RATED_A_VERTICAL} triplets a vertical."""

if __name__ == "__main__":
    main()
