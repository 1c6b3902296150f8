"""The main job on the bundled sample with several seeds: the tables of docs/results.md.

    python bench/sample.py [--seeds 0 1 2] [--out .work/bench-sample] [--long]

Trains every row of the comparison for each seed from the default recipe; with --long also the joint Proxy-NCA model
with up to as many image presentations as the unified model and all the models it learned from had together. Writes
bench/results/sample.md: mean and spread over seeds, merged and within verticals; the unified model against its
specialists in each vertical, by a bootstrap over products of the difference on the same queries. Nothing is
chosen on test data: early stopping looks at the validation split. Started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from univert.core.allocator import reuse_freed_memory
from univert.core.files import write_atomic
from univert.core.run import Run
from univert.data.bundled import build_sample
from univert.data.catalogue import Catalogue
from univert.evaluation.bootstrap import bootstrap_interval
from univert.evaluation.evaluate import evaluate_vectors
from univert.evaluation.ranking import rank_queries
from univert.models.embedder import Embedder
from univert.training.pipeline import train
from univert.training.recipe import Recipe
from univert.training.specialists import train_joint, train_specialist
from univert.training.unify import learning_targets
from univert.training.workshop import Workshop

RESULT = Path(__file__).parent / "results" / "sample.md"


def mean_and_spread(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ± {100 * spread:.1f}"


def comparison(runs: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| model | merged R@1 | merged R@8 | merged MAP@R | merged NMI | mean within R@1 | image presentations |"
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    for number, row in enumerate(runs[0]["rows"]):
        rows = [run["rows"][number] for run in runs]
        merged = [row["evaluation"]["merged"] for row in rows]
        nmi = [metrics["nmi"]["value"] for metrics in merged if metrics["nmi"]]
        cells = [
            row["title"] + (" (told the vertical)" if row["key"] == "specialists" else ""),
            mean_and_spread([metrics["recall_at"]["1"]["value"] for metrics in merged]),
            mean_and_spread([metrics["recall_at"]["8"]["value"] for metrics in merged]),
            mean_and_spread([metrics["map_at_r"]["value"] for metrics in merged]),
            mean_and_spread(nmi) if nmi else "",
            mean_and_spread([row["evaluation"]["mean_within"]["recall_at_1"] for row in rows]),
            f"{statistics.mean(row['image_presentations'] for row in rows):,.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def long_joint_row(workshop: Workshop, results: dict[str, Any]) -> dict[str, Any]:
    """The best joint model, given all the image presentations that stand behind the unified model."""
    unified = results["rows"][-1]
    joint = train_joint(
        workshop, "proxy-nca", unified["image_presentations"], name="baselines/joint_proxy_nca_long"
    )
    test = np.flatnonzero(workshop.splits == "test")
    columns = (list(workshop.catalogue.column(name)[test]) for name in ("product", "vertical"))
    evaluation = evaluate_vectors(
        workshop.source.embed_all(joint.embedder, test), *columns, seed=results["seed"]
    )
    return {
        "key": "joint_proxy_nca_long",
        "title": "The same, given the presentations of the last row",
        "evaluation": evaluation.to_dict(),
        "image_presentations": joint.record["image_presentations"],
        "seconds": joint.record["seconds"],
    }


def against_specialists(workshops: list[Workshop]) -> list[str]:
    """Unified minus specialist, within each vertical, the queries of all seeds together."""
    lines = [
        "| vertical | specialist R@1 | unified R@1 | difference | 95% interval over products |",
        "|---|---|---|---|---|",
    ]
    for name in workshops[0].vertical_names:
        hits: dict[str, list[np.ndarray]] = {"specialist": [], "unified": []}
        for workshop in workshops:
            specialists = {
                vertical: train_specialist(workshop, vertical) for vertical in workshop.vertical_names
            }
            here = np.flatnonzero(workshop.of_vertical(name) & (workshop.splits == "test"))
            labels = workshop.products[here]
            unified = Embedder.from_pretrained(workshop.run.path / "unified")
            vectors = {
                "specialist": learning_targets(workshop, specialists, align=False).clean(here),
                "unified": workshop.source.embed_all(unified, here),
            }
            outcomes = {
                key: rank_queries(value, labels, with_average_precision=False)
                for key, value in vectors.items()
            }
            for key, outcome in outcomes.items():
                hits[key].append(outcome.hits(1).astype(float))
        specialist, unified_hits = (np.mean(hits[key], axis=0) for key in ("specialist", "unified"))
        difference = unified_hits - specialist
        low, high = bootstrap_interval(difference, outcomes["unified"].products, seed=0)
        lines.append(
            f"| {name} | {100 * specialist.mean():.1f} | {100 * unified_hits.mean():.1f} "
            f"| {100 * difference.mean():+.1f} | {100 * float(low):+.1f} to {100 * float(high):+.1f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path(".work/bench-sample"))
    parser.add_argument(
        "--long", action="store_true", help="train the joint model with twice the presentations, too"
    )
    options = parser.parse_args()
    reuse_freed_memory()
    place = options.out / "sample.lance"
    catalogue = Catalogue.open(place) if place.exists() else build_sample(place)
    runs, workshops = [], []
    for seed in options.seeds:
        out = options.out / f"seed-{seed}"
        runs.append(train(catalogue, out, Recipe(seed=seed), report=seed == options.seeds[0]).results)
        workshops.append(Workshop(Run(out), catalogue, Recipe(seed=seed)))
        if options.long:
            place_after = 1 + [row["key"] for row in runs[-1]["rows"]].index("joint_proxy_nca")
            runs[-1]["rows"].insert(place_after, long_joint_row(workshops[-1], runs[-1]))
        print(
            f"seed {seed}:",
            {row["key"]: row["evaluation"]["merged"]["recall_at"]["1"]["value"] for row in runs[-1]["rows"]},
        )
    seconds = [{row["key"]: round(row["seconds"]) for row in run["rows"]} for run in runs]
    lines = [
        "# The main job on the bundled sample",
        "",
        f"Test split, per cent, mean ± standard deviation over seeds {', '.join(map(str, options.seeds))}.",
        "",
        *comparison(runs),
        "",
        "Unified model against the specialist of each vertical, searched within the vertical, mean over the seeds:",
        "",
        *against_specialists(workshops),
        "",
        f"Training seconds by row and seed: `{json.dumps(seconds)}`. Catalogue {catalogue.fingerprint}, "
        f"device {runs[0]['device']}, torch {runs[0]['versions']['torch']}.",
    ]
    write_atomic(RESULT, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
