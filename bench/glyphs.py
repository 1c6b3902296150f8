"""Proxy-NCA against the semi-hard triplet loss where there are thousands of products: the glyph data set.

    python tools/build_glyphs.py --products-limit 4000 --out .work/glyphs/glyphs-4000.lance
    python bench/glyphs.py [--catalogue .work/glyphs/glyphs-4000.lance] [--seeds 0 1 2] [--steps 4000]

Frozen base network at 64 px, cached features, 64-d embeddings, products split into train, val and test. Each loss is
shown the same number of batches of the same size. Its learning rate is the best of --rates by the validation MAP@R of
the first seed (the proxies' is always PROXY_FACTOR times the head's), the same search for all; the weights kept
are those of the best look at the validation split. Nothing is chosen on test data. A training that is finished is not
done again. Writes bench/results/glyphs.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from common import per_cent
from univert.core.allocator import reuse_freed_memory
from univert.core.config import to_plain
from univert.core.files import write_atomic
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.data.transforms import Augmentation
from univert.losses.names import LossName
from univert.metrics.evaluate import evaluate_vectors
from univert.models.config import EmbedderConfig
from univert.models.embedder import Embedder
from univert.training.jobs import TrainedModel
from univert.training.label_config import LabelLoopConfig, SpecialistsConfig
from univert.training.recipe import DataConfig, EvaluationConfig, Recipe
from univert.training.run_context import RunContext
from univert.training.specialists import train_on_labels

RESULT = Path(__file__).parent / "results" / "glyphs.md"
IMAGE_PX, SIZE = 64, 64
PROXY_FACTOR = 30
LOOKS = 20
CONTENDERS: dict[str, tuple[LossName, Literal["random", "data"]]] = {
    "Triplet, semi-hard": ("triplet", "data"),
    "Proxy-NCA": ("proxy-nca", "random"),
    "Proxy-NCA, started from the data": ("proxy-nca", "data"),
}
AUGMENTATION = Augmentation(min_scale=0.8, flip_probability=0.0)  # a mirrored glyph is another one, or none


def open_context(catalogue: Catalogue, out: Path, seed: int, views: int) -> RunContext:
    recipe = Recipe(
        seed=seed,
        base_network_learns="no",
        data=DataConfig(views=views, augmentation=AUGMENTATION),
        model=EmbedderConfig(size=SIZE, image_size_px=IMAGE_PX),
        evaluation=EvaluationConfig(bounds_images=0),
    )
    return RunContext(Run(out / f"seed-{seed}"), catalogue, recipe)


def trained(context: RunContext, contender: str, rate: float, steps: int) -> TrainedModel:
    loop = LabelLoopConfig(
        epochs=1,
        min_steps=steps,
        batch_size=128,
        images_per_product=4,
        learning_rate=rate,
        proxy_learning_rate=PROXY_FACTOR * rate,
        evaluations=LOOKS,
    )
    loss, start = CONTENDERS[contender]
    config = SpecialistsConfig(loss=loss, proxy_start=start, loop=loop)
    return train_on_labels(context, config, name=f"{loss}-{start}-{rate:g}-{steps}")


def evaluated(context: RunContext, embedder: Embedder) -> dict[str, Any]:
    """Test figures, merged and within, and how long they took."""
    test = np.flatnonzero(context.images.splits == "test")
    start = time.perf_counter()
    columns = (list(context.images.catalogue.column(name)[test]) for name in ("product", "vertical"))
    vectors = context.features.source.embed_all(embedder, test)
    figures = to_plain(evaluate_vectors(vectors, *columns, resamples=1, seed=context.recipe.seed))
    return {**figures, "evaluation_seconds": time.perf_counter() - start}


def comparison(rows: dict[str, list[dict[str, Any]]], records: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines = [
        "| model | merged R@1 | merged R@8 | merged MAP@R | merged NMI | mean within R@1 | presentations | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for title, evaluations in rows.items():
        merged = [evaluation["merged"] for evaluation in evaluations]
        cells = [
            title,
            per_cent([metrics["recall_at"]["1"]["value"] for metrics in merged]),
            per_cent([metrics["recall_at"]["8"]["value"] for metrics in merged]),
            per_cent([metrics["map_at_r"]["value"] for metrics in merged]),
            per_cent([metrics["nmi"]["value"] for metrics in merged]),
            per_cent([evaluation["mean_within"]["recall_at_1"] for evaluation in evaluations]),
            *(
                f"{statistics.mean(record[key] for record in records[title]):,.0f}" if title in records else ""
                for key in ("image_presentations", "seconds")
            ),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def within(rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines = [f"| vertical | test products | {' | '.join(rows)} |", "|---|---|" + "---|" * len(rows)]
    first = next(iter(rows.values()))[0]["verticals"]
    for vertical, metrics in first.items():
        if metrics is None:
            continue
        cells = [
            per_cent([one["verticals"][vertical]["recall_at"]["1"]["value"] for one in evaluations])
            for evaluations in rows.values()
        ]
        lines.append(f"| {vertical} | {metrics['products']:,} | {' | '.join(cells)} |")
    return lines


def steps_to(record: dict[str, Any], score: float) -> str:
    """The first look at which the validation score was reached."""
    return next((f"{step:,.0f}" for step, value in record["score_curve"] if value >= score), "never")


def catalogue_lines(catalogue: Catalogue, place: Path) -> list[str]:
    """What was trained on, and how long its making took."""
    products, verticals, brands = (catalogue.column(name) for name in ("product", "vertical", "brand"))
    lines = ["| script | products | images | fonts |", "|---|---|---|---|"]
    for name in (*catalogue.verticals, "all"):
        own = (verticals == name) | (name == "all")
        counts = (len(set(products[own])), int(own.sum()), len(set(brands[own])))
        lines.append(f"| {name} | " + " | ".join(f"{count:,}" for count in counts) + " |")
    sidecar = place.with_suffix(".json")
    if sidecar.exists():
        made = json.loads(sidecar.read_text())
        lines += [
            "",
            f"{made['families_found']} font families found; looking at {made['characters_looked_at']:,} characters in "
            f"them took {made['survey_seconds']:.0f} s, drawing and writing {made['draw_and_write_seconds']:.0f} s.",
        ]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogue", type=Path, default=Path(".work/glyphs/glyphs-4000.lance"))
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3])
    parser.add_argument("--steps", type=int, default=4000, help="batches of 128 images")
    parser.add_argument("--views", type=int, default=2, help="augmented views of each training image")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path(".work/bench-glyphs"))
    parser.add_argument("--features-only", action="store_true", help="compute the features, say how long, stop")
    options = parser.parse_args()
    reuse_freed_memory()
    if not options.catalogue.exists():
        print(
            f"{options.catalogue} is not there; build it: python tools/build_glyphs.py --products-limit 4000 "
            f"--out {options.catalogue}",
            file=sys.stderr,
        )
        return 2
    catalogue = Catalogue.open(options.catalogue)
    contexts = [open_context(catalogue, options.out, seed, options.views) for seed in options.seeds]
    if options.features_only:
        return time_features(contexts[0])
    rows: dict[str, list[dict[str, Any]]] = {
        "Untrained base network": [evaluated(context, context.features.base) for context in contexts[:1]]
    }
    records: dict[str, list[dict[str, Any]]] = {}
    searches = []
    for title in CONTENDERS:
        tried = {rate: trained(contexts[0], title, rate, options.steps) for rate in options.rates}
        rate = max(tried, key=lambda rate: tried[rate].record["best_score"])
        scores = ", ".join(f"{rate:g}: {100 * model.record['best_score']:.1f}" for rate, model in tried.items())
        searches.append(f"{title}: {rate:g} (validation MAP@R by rate: {scores})")
        models = [trained(context, title, rate, options.steps) for context in contexts]
        records[title] = [model.record for model in models]
        rows[title] = [evaluated(context, model.embedder) for context, model in zip(contexts, models, strict=True)]
        print(f"{searches[-1]}; merged R@1 {[row['merged']['recall_at']['1']['value'] for row in rows[title]]}")
    lines = report(catalogue, options, rows, records, searches)
    write_atomic(RESULT, "\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


def report(
    catalogue: Catalogue,
    options: argparse.Namespace,
    rows: dict[str, list[dict[str, Any]]],
    records: dict[str, list[dict[str, Any]]],
    searches: list[str],
) -> list[str]:
    goal = records["Triplet, semi-hard"][0]["best_score"]
    reached = [f"{title} {steps_to(own[0], goal)}" for title, own in records.items()]
    evaluation_seconds = statistics.mean(row["evaluation_seconds"] for own in rows.values() for row in own)
    return [
        "# Glyphs: thousands of products",
        "",
        *catalogue_lines(catalogue, options.catalogue),
        "",
        f"Test products, per cent, mean ± standard deviation over seeds {', '.join(map(str, options.seeds))}; all "
        f"verticals in one gallery (merged), and each alone (within). {options.steps:,} batches of 128 images a loss.",
        "",
        *comparison(rows, records),
        "",
        "R@1 within each vertical:",
        "",
        *within(rows),
        "",
        f"Steps to the triplet loss's best validation MAP@R, looking {LOOKS} times (first seed): {', '.join(reached)}.",
        "",
        f"Learning rates: {'; '.join(searches)}. Evaluation with NMI took {evaluation_seconds:.0f} s. "
        f"Catalogue {catalogue.fingerprint}, {options.views} augmented views, torch {torch.__version__}, "
        f"{os.cpu_count()} cores.",
    ]


def time_features(context: RunContext) -> int:
    """Compute the features as a training would; a second time they are only opened."""
    start = time.perf_counter()
    images = len(context.images.catalogue) + context.recipe.data.views * int(context.images.is_train.sum())
    assert context.features.source.views == context.recipe.data.views
    seconds = time.perf_counter() - start
    print(f"{images:,} images and views in {seconds:.1f} s, {1000 * seconds / images:.2f} s for 1,000")
    return 0


if __name__ == "__main__":
    sys.exit(main())
