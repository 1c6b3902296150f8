"""Fine-tuning on clean triplets: what they bring to a model that knows half of the labels, or all of them.

    python bench/clean_triplets.py [--seeds 0 1 2] [--out .work/bench-triplets]

For each seed one Proxy-NCA model learns from half of the labelled training products of the emoji, another from all;
each is fine-tuned on triplets of true labels with hard negatives: of the hidden half for the first, of everything or of
one vertical for the second; with the L2 term that holds a model to its old embeddings, and without. Writes
bench/results/clean-triplets.md: before and after on the validation split, which decides, and on test. Started again, it
goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from common import emoji_catalogue, per_cent
from univert.core.allocator import reuse_freed_memory
from univert.core.config import from_plain, to_plain
from univert.core.files import fingerprint, write_atomic
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.metrics.compare import Comparison, Metric
from univert.training.finetune import FinetuneConfig, FinetuneResult, finetune
from univert.training.jobs import TrainedModel
from univert.training.label_config import SpecialistsConfig
from univert.training.label_training import label_job
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext

RESULT = Path(__file__).parent / "results" / "clean-triplets.md"
ONE_VERTICAL = "food-drink"
HARD = 5
"""A negative is one of the images of other products that lie nearest, so many of them."""


def known_model(context: RunContext, known: np.ndarray, name: str) -> TrainedModel:
    """A Proxy-NCA model of the training products that are known; all validation images say when it is best."""
    among = known | (context.images.splits == "val")
    config = SpecialistsConfig(loss="proxy-nca")
    folder = context.stages.work_folder(name)
    inputs = {"known": fingerprint(np.packbits(known).tobytes()), **to_plain(config)}
    return context.stages.train(name, inputs, lambda: label_job(context, config, among, folder=folder))


def write_triplets(
    path: Path, context: RunContext, model: TrainedModel, anchors: np.ndarray, *, each: int, seed: int
) -> None:
    """For each anchor some positives of its product, each with a near image of another product of its vertical."""
    rng = np.random.default_rng(seed)
    usable = np.flatnonzero(context.images.is_train & (context.images.products >= 0))
    vectors, products = context.features.source.embed_all(model.embedder, usable), context.images.products[usable]
    verticals, ids = context.images.verticals[usable], context.images.catalogue.column("id")[usable]
    path.parent.mkdir(parents=True, exist_ok=True)
    written = set()
    for place in np.flatnonzero(anchors[usable]):
        same = np.flatnonzero(products == products[place])
        same = same[same != place]
        others = np.flatnonzero((products != products[place]) & (verticals == verticals[place]))
        near = others[np.argsort(-(vectors[others] @ vectors[place]))[:HARD]]
        for _ in range(each if len(same) else 0):
            written.add((ids[place], ids[rng.choice(same)], ids[rng.choice(near)]))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("anchor", "positive", "negative"), *sorted(written)])


def cases(context: RunContext, seed: int) -> dict[str, tuple[str, np.ndarray, np.ndarray, int]]:
    """By title: the model's folder, the training images it has seen, the anchors, and triplets of each anchor."""
    labelled = context.images.is_train & (context.images.products >= 0)
    codes = np.unique(context.images.products[labelled])
    half = np.random.default_rng(100 + seed).permutation(codes)[: len(codes) // 2]
    seen = labelled & np.isin(context.images.products, half)
    return {
        "half of the products; triplets of the other half": ("half", seen, labelled & ~seen, 3),
        "all products; triplets of the same": ("all", labelled, labelled, 2),
        f"all products; triplets of {ONE_VERTICAL}": (
            *("all", labelled),
            *(labelled & context.images.of_vertical(ONE_VERTICAL), 4),
        ),
    }


def tuned(catalogue: Catalogue, out: Path, seed: int) -> dict[str, FinetuneResult]:
    """All cases of one seed, with and without the L2 term."""
    context = RunContext(Run(out), catalogue, Recipe(seed=seed, base_network_learns="no"))
    found = {}
    for number, (title, (name, seen, anchors, each)) in enumerate(cases(context, seed).items()):
        model = known_model(context, seen, name)
        triplets = out / f"triplets-{number}.csv"
        write_triplets(triplets, context, model, anchors, each=each, seed=seed)
        config = FinetuneConfig(seed=seed)
        for ending, choices in (("", config), (", without the L2 term", replace(config, keep=0.0))):
            place = out / "tuned" / f"{number}{'-free' if ending else ''}"
            found[title + ending] = finetune(model.folder, catalogue, triplets, place, choices)
    return found


def table(found: Sequence[dict[str, FinetuneResult]], split: str) -> list[str]:
    """A line a case: before, after, and how often the comparison kept the new model."""
    lines = [
        "| the model has seen | triplets | R@1 before | after | change | MAP@R before | after | change | kept |",
        "|---" * 9 + "|",
    ]
    metrics: tuple[Metric, ...] = ("recall_at_1", "map_at_r")
    for title in found[0]:
        results = [run[title] for run in found]
        count = np.mean([result.results["triplets"]["used"] for result in results])
        cells = [title, f"{count:,.0f}"]
        comparisons = [from_plain(Comparison, result.results[split]).merged for result in results]
        for metric in metrics:
            cells.append(per_cent([merged[metric].first for merged in comparisons]))
            cells.append(per_cent([merged[metric].second for merged in comparisons]))
            cells.append(per_cent([merged[metric].difference for merged in comparisons], sign=True))
        kept = sum(result.kept for result in results)
        lines.append(f"| {' | '.join(cells)} | {kept} of {len(results)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path(".work/bench-triplets"))
    options = parser.parse_args()
    reuse_freed_memory()
    catalogue = emoji_catalogue()
    found = []
    for seed in options.seeds:
        found.append(tuned(catalogue, options.out / f"seed-{seed}", seed))
        print(f"seed {seed}", *table(found[-1:], "val"), sep="\n", flush=True)
    lines = [
        "# Clean triplets on the emoji catalogue",
        "",
        "Per cent, merged gallery, mean ± standard deviation over the seeds "
        f"{', '.join(map(str, options.seeds))}; kept: the paired comparison on the validation split found no gallery "
        "worse. Frozen base network.",
    ]
    for split in ("val", "test"):
        lines += ["", f"## {split}", "", *table(found, split)]
    write_atomic(RESULT, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
