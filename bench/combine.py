"""Which verticals to train together: does the probe foretell what full trials decide, and at what cost?

    python bench/combine.py [--seeds 0] [--out .work/bench-combine] [--both] [--again]

For each seed: the probe from scratch, timed; full trials (heads, steps and loss of the specialists), timed; then every
combination that full mode tried is put to the probe, and the two decisions are compared. With --both also the other way
round: what the probe tried is tried in full. With --again the full trials are trained once more from other random
starts, which shows how far full mode agrees with itself. All judge on the same held-out training products, so that they
differ by their trainings alone. Writes bench/results/combine.md; no test image is looked at. Started again, it goes on
where it was, yet times only what it still had to train.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from common import emoji_catalogue
from univert.core.allocator import reuse_freed_memory
from univert.core.files import write_atomic
from univert.core.run import Run
from univert.training.combine.config import CombineConfig
from univert.training.combine.groups import LEVEL, Combination, Judge, Measure, Trial, combine
from univert.training.combine.probe import Probe, full_measure
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext

RESULT = Path(__file__).parent / "results" / "combine.md"


def timed(function: Callable[[], Combination]) -> tuple[Combination, float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    found = function()
    return found, time.perf_counter() - wall, time.process_time() - processor


def decisions(trials: tuple[Trial, ...], measure: Measure, config: CombineConfig, seed: int) -> list[bool]:
    """What another measure says of the same combinations."""
    judge = Judge(measure=measure, tolerance=config.tolerance, seed=seed)
    return [judge(trial.number, trial.group, trial.added).accepted for trial in trials]


def again(context: RunContext) -> RunContext:
    """The same images and features, other random starts, and a folder of its own for what is trained."""
    run, recipe = Run(context.run.path / "again"), replace(context.recipe, seed=context.recipe.seed + 100)
    return RunContext(run, context.images.catalogue, recipe, features=context.features)


def table(rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def tried(combination: Combination) -> list[list[str]]:
    """Recall@1 of the specialists and of every combination tried, a column a vertical."""
    names = list(combination.individual)
    rows = [["model", *names, "verdict"]]
    own = [one["recall_at_1"] if one else None for one in combination.individual.values()]
    rows.append(["individual models", *map(percent, own), ""])
    for trial in combination.trials:
        figures = {name: values["recall_at_1"].second for name, values in trial.differences.items()}
        verdict = "accepted" if trial.accepted else "refused"
        rows.append([" + ".join(trial.verticals), *(percent(figures.get(name)) for name in names), verdict])
    return rows


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path(".work/bench-combine"))
    parser.add_argument("--both", action="store_true", help="also try in full what the probe tried")
    parser.add_argument("--again", action="store_true", help="also hold full mode against itself")
    options = parser.parse_args()
    reuse_freed_memory()
    catalogue = emoji_catalogue()
    summary = [["seed", "probe s", "probe CPU s", "full s", "full CPU s", "trials tried in", "trials", "both accept"]]
    summary[0] += ["both refuse", "probe alone refuses", "full alone refuses", "agreement"]
    pages: list[str] = []
    itself: list[str] = []
    total = agreed = 0
    for seed in options.seeds:
        contexts = {}
        for mode in ("probe", "full"):
            config = CombineConfig(mode=mode)
            recipe = Recipe(seed=seed, base_network_learns="no", combine=config)
            contexts[mode] = RunContext(Run(options.out / f"seed-{seed}"), catalogue, recipe)
            _ = contexts[mode].features.source  # features are cached before the clock starts
        probe, *probe_seconds = timed(lambda: combine(contexts["probe"]))  # noqa: B023
        full, *full_seconds = timed(lambda: combine(contexts["full"]))  # noqa: B023
        sides: list[tuple[str, Combination, Measure]] = [("full", full, Probe(contexts["probe"]))]
        if options.both:
            sides.append(("probe", probe, full_measure(contexts["full"])))
        for mode, walked, measure in sides:
            own = [trial.accepted for trial in walked.trials]
            other = decisions(walked.trials, measure, walked.config, seed)
            by_probe, by_full = (other, own) if mode == "full" else (own, other)
            pairs = list(zip(by_probe, by_full, strict=True))
            total, agreed = total + len(pairs), agreed + sum(a == b for a, b in pairs)
            kinds = [(True, True), (False, False), (False, True), (True, False)]
            seconds = [f"{value:.0f}" for value in (*probe_seconds, *full_seconds)]
            counts = [str(len(pairs)), *(str(pairs.count(kind)) for kind in kinds)]
            agreement = f"{100 * sum(a == b for a, b in pairs) / len(pairs):.0f}%"
            summary.append([str(seed), *seconds, f"{mode} mode", *counts, agreement])
        if options.again:
            other = decisions(full.trials, full_measure(again(contexts["full"])), full.config, seed)
            pairs = [(first, trial.accepted) for first, trial in zip(other, full.trials, strict=True)]
            same = sum(first == second for first, second in pairs)
            itself.append(
                f"Seed {seed}: full trials from other random starts decide alike in {same} of {len(pairs)} cases."
            )
        for mode, found in (("probe", probe), ("full", full)):
            pages += ["", f"## Seed {seed}, {mode}", "", "R@1 of every combination tried (Table 1):", ""]
            groups = [["group", "verticals"]]
            groups += [[str(number), ", ".join(group)] for number, group in enumerate(found.groups, start=1)]
            pages += [*table(tried(found)), "", "The groups (Table 2):", "", *table(groups), "", "The path:", ""]
            pages += [f"- {line}" for line in found.path]
    lines = [
        "# Combining verticals: the probe against full trials",
        "",
        f"Emoji catalogue, 9 verticals, {probe.config.folds} folds, tolerance "
        f"{probe.config.tolerance}, level {LEVEL}; {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}. Agreement over all: {agreed} of {total} decisions.",
        "",
        *table(summary),
        "",
        *itself,
        *pages,
    ]
    write_atomic(RESULT, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
