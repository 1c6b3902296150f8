"""All losses side by side on the bundled sample: the tables and plots of docs/proxy-results.md.

    python bench/proxies.py [--seeds 0 1 2] [--steps 600] [--processes 2] [--out FOLDER]

Frozen base network, cached features, 64-d embeddings, zero-shot test products. Every loss is shown the same images
of the same number of batches. Its head learning rate is the best of RATES by the validation MAP@R of one run each
(the proxies' is always PROXY_FACTOR times the head's): the same search for all. The weights kept are those of the best
look at the validation split. Nothing is chosen on test data. A run that is finished is not done again; results go to
bench/results/proxies.md, plots to docs/images/.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from univert.core.allocator import reuse_freed_memory
from univert.core.files import fingerprint, write_atomic
from univert.core.run import Run
from univert.data.bundled import build_sample
from univert.data.catalogue import Catalogue
from univert.evaluation.evaluate import evaluate_vectors
from univert.evaluation.ranking import recall_at_k
from univert.losses.registry import LOSSES, LossName
from univert.models.config import EmbedderConfig
from univert.training.recipe import LoopConfig, LossOption, Recipe, SpecialistsConfig
from univert.training.specialists import label_lesson
from univert.training.workshop import Workshop

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
PROXY_FACTOR = 30
RATIOS = (0.1, 0.25, 0.5, 1, 2)
LOOKS = 40
RESULTS = Path(__file__).parent / "results"
SIZE = 64


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training.

    Attributes:
        loss: which.
        options: of the loss.
        rate: of the head.
        ratio: proxies per product.
        start: of the proxies.
        seed: of everything.
        steps: how many.
    """

    loss: LossName
    rate: float
    seed: int
    steps: int
    options: dict[str, LossOption] = field(default_factory=dict)
    ratio: float = 1.0
    start: str = "random"

    @property
    def key(self) -> str:
        return f"{self.loss}-{fingerprint(asdict(self))[:12]}"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A row of the table: a loss and its options."""

    title: str
    loss: LossName
    options: dict[str, LossOption] = field(default_factory=dict)


CONTENDERS = [
    *(Contender(title=entry.title, loss=name) for name, entry in LOSSES.items()),
    Contender(title="Proxy-NCA, as printed", loss="proxy-nca", options={"form": "paper"}),
    Contender(title="Proxy-NCA, label smoothing 0.1", loss="proxy-nca", options={"label_smoothing": 0.1}),
]


@cache
def workshop(out: Path, seed: int) -> Workshop:
    place = out / "sample.lance"
    catalogue = Catalogue.open(place) if place.exists() else build_sample(place)
    recipe = Recipe(seed=seed, model=EmbedderConfig(size=SIZE))
    return Workshop(Run(out / f"seed-{seed}"), catalogue, recipe)


def run_trial(out: Path, trial: Trial) -> dict[str, Any]:
    place = out / "trials" / f"{trial.key}.json"
    if place.exists():
        result: dict[str, Any] = json.loads(place.read_text())
        return result
    torch.set_num_threads(1)  # two trainings side by side are faster than one on two cores
    work = workshop(out, trial.seed)
    loop = LoopConfig(
        epochs=1,
        min_steps=trial.steps,
        learning_rate=trial.rate,
        proxy_learning_rate=PROXY_FACTOR * trial.rate,
        evaluations=LOOKS,
        patience=LOOKS + 1,
    )
    config = SpecialistsConfig(
        loss=trial.loss,
        loss_options=trial.options,
        proxies_per_product=trial.ratio,
        proxy_start=trial.start,  # type: ignore[arg-type]
        loop=loop,
    )
    lesson = label_lesson(work, config, np.ones(len(work.catalogue), bool))
    test = np.flatnonzero((work.splits == "test") & (work.products >= 0))
    watch = lesson.monitor

    def monitor() -> Mapping[str, float]:
        vectors = work.source.embed_all(lesson.embedder, test)
        return {
            "test_recall_at_1": recall_at_k(vectors, work.products[test], ks=(1,))[1],
            **(watch() if watch else {}),
        }

    started = time.perf_counter()
    record = work.learn(trial.key, replace(lesson, monitor=monitor), work.run.path / "work" / trial.key)
    evaluation = evaluate_vectors(
        work.source.embed_all(lesson.embedder, test),
        list(work.catalogue.column("product")[test]),
        list(work.catalogue.column("vertical")[test]),
        resamples=1,
        seed=trial.seed,
    ).to_dict()
    result = {"trial": asdict(trial), "record": record, "evaluation": evaluation}
    result["seconds"] = time.perf_counter() - started
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(place, json.dumps(result))
    print(
        f"{trial.loss} {trial.options or ''} rate {trial.rate:g} ratio {trial.ratio:g} seed {trial.seed}: "
        f"val {record['best_score']:.4f}, {result['seconds']:.0f} s",
        flush=True,
    )
    return result


class Bench:
    """Runs trials side by side, each once."""

    def __init__(self, out: Path, processes: int) -> None:
        self._out, self._processes = out, processes

    def run(self, trials: list[Trial]) -> list[dict[str, Any]]:
        for seed in sorted({trial.seed for trial in trials}):
            _ = workshop(self._out, seed).source  # features first: the trainings share them
        workshop.cache_clear()
        context = multiprocessing.get_context("spawn")
        with context.Pool(self._processes) as pool:
            return pool.starmap(run_trial, [(self._out, trial) for trial in trials], chunksize=1)

    def tuned_rate(self, contenders: list[Contender], steps: int, seed: int) -> dict[str, float]:
        trials = [
            Trial(loss=one.loss, options=one.options, rate=rate, seed=seed, steps=steps)
            for one in contenders
            for rate in RATES
        ]
        results = self.run(trials)
        best = {}
        for number, one in enumerate(contenders):
            mine = results[number * len(RATES) : (number + 1) * len(RATES)]
            best[one.title] = max(mine, key=lambda result: result["record"]["best_score"])["trial"]["rate"]
        return best


def spread(values: list[float], *, scale: float = 100, digits: int = 1) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{scale * statistics.mean(values):.{digits}f} ± {scale * deviation:.{digits}f}"


def recall_curve(results: list[dict[str, Any]]) -> list[tuple[int, float]]:
    """Test R@1 against steps, mean over seeds."""
    curves = [result["record"]["monitor_curves"]["test_recall_at_1"] for result in results]
    return [
        (int(points[0][0]), statistics.mean(value for _, value in points))
        for points in zip(*curves, strict=True)
    ]


def steps_to(curve: list[tuple[int, float]], level: float) -> int | None:
    return next((step for step, value in curve if value >= level), None)


def losses_part(bench: Bench, seeds: list[int], steps: int) -> tuple[list[str], dict[str, Any]]:
    rates = bench.tuned_rate(CONTENDERS, steps, seeds[0])
    trials = [
        Trial(loss=one.loss, options=one.options, rate=rates[one.title], seed=seed, steps=steps)
        for one in CONTENDERS
        for seed in seeds
    ]
    found = bench.run(trials)
    rows = {one.title: found[i * len(seeds) : (i + 1) * len(seeds)] for i, one in enumerate(CONTENDERS)}
    lines = [
        "| loss | R@1 | R@2 | R@4 | R@8 | NMI | mean within R@1 | head rate |",
        "|---|---|---|---|---|---|---|---|",
    ]
    figure = _merged_figure
    order = sorted(rows, key=lambda title: statistics.mean(map(figure("1"), rows[title])))
    for title in order:
        results = rows[title]
        recalls = [spread([figure(k)(result) for result in results]) for k in ("1", "2", "4", "8")]
        nmi = spread([result["evaluation"]["merged"]["nmi"]["value"] for result in results])
        within = spread([result["evaluation"]["mean_within"]["recall_at_1"] for result in results])
        lines.append(f"| {title} | {' | '.join(recalls)} | {nmi} | {within} | {rates[title]:g} |")
    curves = {title: recall_curve(results) for title, results in rows.items()}
    triplet = curves[LOSSES["triplet"].title]
    level = statistics.mean(value for _, value in triplet[-3:])
    reached = steps_to(triplet, level)
    lines += [
        "",
        f"The triplet loss ends at R@1 {100 * level:.1f} (mean of its last three looks) and first reaches it at step "
        f"{reached}. Steps until others do, and the factor:",
        "",
        "| loss | steps | times sooner |",
        "|---|---|---|",
    ]
    for title in order[::-1]:
        at = steps_to(curves[title], level)
        factor = f"{reached / at:.1f}" if at and reached else "not reached"
        lines.append(f"| {title} | {at or ''} | {factor} |")
    bounds = {
        title: results[0]["record"]["monitor_curves"]
        for title, results in rows.items()
        if len(results[0]["record"]["monitor_curves"]) > 1
    }
    return lines, {"curves": curves, "bounds": bounds, "rates": rates}


def _merged_figure(k: str) -> Callable[[dict[str, Any]], float]:
    return lambda result: float(result["evaluation"]["merged"]["recall_at"][k]["value"])


def ratios_part(
    bench: Bench, seeds: list[int], steps: int, rates: dict[str, float]
) -> tuple[list[str], dict[str, Any]]:
    kinds: dict[str, tuple[LossName, str]] = {
        "static": ("proxy-nca", "random"),
        "dynamic": ("dynamic-proxy-nca", "random"),
        "dynamic, proxies started from the data": ("dynamic-proxy-nca", "data"),
    }
    trials = [
        Trial(loss=loss, rate=rates[LOSSES[loss].title], ratio=ratio, start=start, seed=seed, steps=steps)
        for loss, start in kinds.values()
        for ratio in RATIOS
        for seed in seeds
    ]
    found = iter(bench.run(trials))
    header = " | ".join(f"{ratio:g}" for ratio in RATIOS)
    lines = [f"| assignment | {header} |", "|---" * (len(RATIOS) + 1) + "|"]
    plots: dict[str, Any] = {}
    for kind in kinds:
        values = [[_merged_figure("1")(next(found)) for _ in seeds] for _ in RATIOS]
        lines.append(f"| {kind} | " + " | ".join(spread(one) for one in values) + " |")
        plots[kind] = values
    return lines, plots


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(".work/bench-proxies"))
    options = parser.parse_args()
    reuse_freed_memory()
    bench = Bench(options.out, options.processes)
    started = time.perf_counter()
    loss_lines, plots = losses_part(bench, options.seeds, options.steps)
    ratio_lines, ratios = ratios_part(bench, options.seeds, options.steps, plots["rates"])
    write_atomic(options.out / "plots.json", json.dumps({**plots, "ratios": ratios}))
    catalogue = workshop(options.out, options.seeds[0]).catalogue
    lines = [
        "# Losses on the bundled sample",
        "",
        f"{SIZE}-d, frozen base network, {options.steps} batches of 32 products x 4 images, test split, one gallery of "
        "all verticals, per cent, mean ± standard deviation over seeds "
        f"{', '.join(map(str, options.seeds))}. Head learning rate: the best of "
        f"{', '.join(f'{rate:g}' for rate in RATES)} by validation MAP@R with seed {options.seeds[0]}, one run each, "
        f"for every loss; the proxies' is {PROXY_FACTOR} times the head's. All other options are the losses' defaults.",
        "",
        *loss_lines,
        "",
        "## Proxies per product",
        "",
        "R@1 of Proxy-NCA in one gallery of all verticals.",
        "",
        *ratio_lines,
        "",
        f"Catalogue {catalogue.fingerprint}, torch {torch.__version__}; {time.perf_counter() - started:.0f} s for what "
        "was not there yet.",
    ]
    write_atomic(RESULTS / "proxies.md", "\n".join(lines) + "\n")
    print("\n".join(lines))

    from proxy_plots import draw

    draw(json.loads((options.out / "plots.json").read_text()), RATIOS, Path("docs/images"))


if __name__ == "__main__":
    main()
