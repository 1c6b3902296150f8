"""The main job on the emoji catalogue with several seeds: the tables of docs/results.md.

    python bench/sample.py [--seeds 0 1 2] [--out .work/bench-sample]
    python bench/sample.py --catalogue .work/glyphs/glyphs-300.lance --out .work/bench-glyphs --result glyphs-run

Trains every row of the comparison for each seed from the default recipe. Writes bench/results/sample.md: mean and
spread over seeds, merged and within verticals; the unified model against its specialists in each vertical, by a
bootstrap over products of the difference on the same queries. Nothing is chosen on test data: the best step of a
training is chosen on the validation split. Started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common import emoji_catalogue, per_cent
from univert.core.allocator import reuse_freed_memory
from univert.core.config import read_settings
from univert.core.files import write_atomic
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.main_job import train
from univert.metrics.bootstrap import bootstrap_interval
from univert.metrics.per_query import Outcomes, query_outcomes
from univert.metrics.ranking import QueryOutcome
from univert.training.evaluation import TestSplit
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.stages import comparison_rows, train_models

RESULTS = Path(__file__).parent / "results"


def comparison(runs: list[dict[str, Any]]) -> list[str]:
    lines = ["| model | merged R@1 | merged R@8 | merged MAP@R | merged NMI | mean within R@1 | image presentations |"]
    lines += ["|---|---|---|---|---|---|---|"]
    shared = [key for key in (row["key"] for row in runs[0]["rows"]) if all(_row(run, key) for run in runs)]
    for key in shared:
        rows = [row for run in runs if (row := _row(run, key))]
        row = rows[0]
        merged = [row["evaluation"]["merged"] for row in rows]
        nmi = [metrics["nmi"]["value"] for metrics in merged if metrics["nmi"]]
        cells = [
            _title(rows) + (" (told the vertical)" if key == "specialists" else ""),
            per_cent([metrics["recall_at"]["1"]["value"] for metrics in merged]),
            per_cent([metrics["recall_at"]["8"]["value"] for metrics in merged]),
            per_cent([metrics["map_at_r"]["value"] for metrics in merged]),
            per_cent(nmi) if nmi else "",
            per_cent([row["evaluation"]["mean_within"]["recall_at_1"] for row in rows]),
            f"{statistics.mean(row['image_presentations'] for row in rows):,.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _title(rows: list[dict[str, Any]]) -> str:
    titles = {row["title"] for row in rows}
    return titles.pop() if len(titles) == 1 else "Chosen by each run"


def _row(run: dict[str, Any], key: str) -> dict[str, Any] | None:
    return next((row for row in run["rows"] if row["key"] == key), None)


def outcomes_of(context: RunContext) -> dict[str, Outcomes]:
    """What happened to the test queries of a finished run, by row."""
    models = train_models(context)
    rows, _ = comparison_rows(context, models)
    test = TestSplit(context)
    columns = test.products, test.verticals
    return {
        row.key: query_outcomes(test.vectors(row), *columns, routed=row.routed, queries=test.queries) for row in rows
    }


def difference_line(title: str, pairs: list[tuple[QueryOutcome, QueryOutcome]]) -> str:
    """Recall@1 of the second against the first on the same queries, each query's mean over the seeds."""
    first, second = (np.mean([pair[side].hits(1).astype(float) for pair in pairs], axis=0) for side in (0, 1))
    low, high = bootstrap_interval(second - first, pairs[0][0].products, seed=0, resamples=5000)
    return (
        f"| {title} | {100 * first.mean():.1f} | {100 * second.mean():.1f} | {100 * (second - first).mean():+.1f} "
        f"| {100 * float(low):+.1f} to {100 * float(high):+.1f} |"
    )


def against_specialists(runs: list[dict[str, Outcomes]]) -> list[str]:
    """Unified against the specialist, within each vertical."""
    lines = [
        "| vertical | specialist R@1 | unified R@1 | difference | 95% interval over products |",
        "|---|---|---|---|---|",
    ]
    for name in runs[0]["unified"].verticals:
        pairs = [(run["specialists"].verticals[name], run["unified"].verticals[name]) for run in runs]
        known = [(first, second) for first, second in pairs if first is not None and second is not None]
        if known:
            lines.append(difference_line(name, known))
    return lines


def against_rivals(runs: list[dict[str, Outcomes]], titles: dict[str, str]) -> list[str]:
    """Unified against every other model, in the merged gallery."""
    lines = ["| against | its R@1 | unified R@1 | difference | 95% interval over products |", "|---|---|---|---|---|"]
    for key in runs[0]:
        if key not in ("unified", "specialists", "groups") and all(key in run for run in runs):
            pairs = [(run[key].merged, run["unified"].merged) for run in runs]
            lines.append(difference_line(titles[key], pairs))
    return lines


def decisions(runs: list[dict[str, Any]]) -> list[str]:
    """What each run decided on its validation split."""
    lines = []
    for run in runs:
        groups = "; ".join(" + ".join(group) for group in run["combination"]["groups"])
        members = [member["name"] for member in run.get("ensemble", {}).get("members", []) if member["kept"]]
        lines += [
            f"- seed {run['seed']}: groups {groups}. Members of the targets: {', '.join(members)}. "
            f"Chosen: {run['choice']['reason']}."
        ]
    return lines


def add_options(parser: argparse.ArgumentParser, out: str) -> None:
    """What every bench of the main job takes."""
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path(out))
    parser.add_argument("--set", nargs="*", default=[], dest="settings", help="change the recipe: key=value")


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """The runs of several seeds: what each recorded, its context, and what happened to its test queries by row."""

    seeds: list[int]
    results: list[dict[str, Any]]
    contexts: list[RunContext]
    outcomes: list[dict[str, Outcomes]]


def run_seeds(catalogue: Catalogue, options: argparse.Namespace) -> Seeds:
    """The main job with each of the seeds, each in its folder."""
    found = Seeds(seeds=options.seeds, results=[], contexts=[], outcomes=[])
    for seed in options.seeds:
        out = options.out / f"seed-{seed}"
        recipe = read_settings(Recipe, None, [*options.settings, f"seed={seed}"])
        results = train(catalogue, out, recipe, report=seed == options.seeds[0]).results
        context = RunContext(Run(out), catalogue, recipe)
        found.outcomes.append(outcomes_of(context))
        merged = {row["key"]: row["evaluation"]["merged"]["recall_at"]["1"]["value"] for row in results["rows"]}
        print(f"seed {seed}:", merged, flush=True)
        found.results.append(results)
        found.contexts.append(context)
    return found


def main_tables(found: Seeds, catalogue: Catalogue) -> list[str]:
    """The comparison, the unified model against its rivals, and what the runs decided."""
    titles = {row["key"]: row["title"] for row in found.results[0]["rows"]}
    seconds = [{row["key"]: round(row["seconds"]) for row in run["rows"]} for run in found.results]
    return [
        f"Test split, per cent, mean ± standard deviation over seeds {', '.join(map(str, found.seeds))}.",
        "",
        *comparison(found.results),
        "",
        "Unified model against the specialist of each vertical, searched within the vertical, mean over the seeds:",
        "",
        *against_specialists(found.outcomes),
        "",
        "Unified model against each other model, merged gallery, mean over the seeds:",
        "",
        *against_rivals(found.outcomes, titles),
        "",
        "What the runs decided, on their validation splits:",
        "",
        *decisions(found.results),
        "",
        f"Training seconds by row and seed: `{json.dumps(seconds)}`. Catalogue {catalogue.fingerprint}, "
        f"device {found.results[0]['device']}, torch {found.results[0]['versions']['torch']}.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalogue", type=Path, help="another catalogue than the emoji")
    parser.add_argument("--result", default="sample", help="name of the file in bench/results")
    add_options(parser, ".work/bench-sample")
    options = parser.parse_args()
    reuse_freed_memory()
    catalogue = Catalogue.open(options.catalogue) if options.catalogue else emoji_catalogue()
    found = run_seeds(catalogue, options)
    title = "the emoji catalogue" if options.catalogue is None else options.catalogue.stem
    lines = [f"# The main job: {title}", "", *main_tables(found, catalogue)]
    write_atomic(RESULTS / f"{options.result}.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
