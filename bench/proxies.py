"""All losses side by side, by default on the emoji catalogue: the tables and plots of docs/proxy-results.md.

    python bench/proxies.py [--seeds 0 1 2] [--steps 600] [--processes 2] [--out FOLDER]
    python bench/proxies.py --catalogue runs/demo/home.lance --result proxies-home --out .work/bench-proxies-home

Frozen base network, cached features, 64-d embeddings, zero-shot test products. Every loss is shown the same images
of the same number of batches. Its learning rates are the best of eight trials by validation MAP@R: eight rates of the
head for losses on data points (POINT_RATES), eight pairs of the head's and the proxies' for the others (PROXY_RATES).
The weights kept are those of the best look at the validation split. Nothing is chosen on test data. A training that is
finished is not done again, unless its settings or the loss's defaults have changed. Results go to
bench/results/RESULT.md, plots of the emoji catalogue to docs/images/. Items of scenes, where there are any, ask the
product pictures.
"""

from __future__ import annotations

import argparse
import inspect
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from common import emoji_catalogue
from univert import losses
from univert.core.allocator import reuse_freed_memory
from univert.core.config import to_plain
from univert.core.files import fingerprint, write_atomic
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.losses.names import LOSSES, LossName, LossOption
from univert.metrics.evaluate import evaluate_vectors
from univert.metrics.per_query import query_outcomes
from univert.models.config import EmbedderConfig
from univert.training.label_config import LabelLoopConfig, SpecialistsConfig
from univert.training.label_training import label_job
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext

Rates = tuple[float, float]
"""Learning rates of the head and of the proxies."""
POINT_RATES: tuple[Rates, ...] = tuple((rate, 1.0) for rate in (1e-4, 3e-4, 5e-4, 1e-3, 2e-3, 3e-3, 1e-2, 3e-2))
PROXY_RATES: tuple[Rates, ...] = (
    (3e-4, 1e-2),
    (3e-4, 1e-1),
    (1e-3, 1e-2),
    (1e-3, 1e-1),
    (1e-3, 3e-1),
    (1e-3, 1.0),
    (3e-3, 1e-2),
    (3e-3, 1e-1),
)
RATIOS = (0.1, 0.25, 0.5, 1.0, 2.0)
LOOKS, TUNING_LOOKS = 24, 8
RESULTS = Path(__file__).parent / "results"
SIZE = 64


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training.

    Attributes:
        loss: which.
        options: of the loss.
        rates: of the head and of the proxies.
        ratio: proxies per product.
        start: of the proxies.
        seed: of everything.
        steps: how many.
        tuning: look at the validation split alone.
    """

    loss: LossName
    rates: Rates
    seed: int
    steps: int
    options: dict[str, LossOption] = field(default_factory=dict)
    ratio: float = 1.0
    start: Literal["data", "random", "random-assignment"] = "random"
    tuning: bool = False

    @property
    def key(self) -> str:
        defaults = {
            name: repr(option.default)
            for name, option in inspect.signature(getattr(losses, LOSSES[self.loss].class_name)).parameters.items()
        }
        return f"{self.loss}-{fingerprint(asdict(self), defaults)[:12]}"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A row of the table: a loss, its options, and where its proxies start."""

    title: str
    loss: LossName
    options: dict[str, LossOption] = field(default_factory=dict)
    start: Literal["data", "random", "random-assignment"] = "random"

    @property
    def search(self) -> tuple[Rates, ...]:
        return POINT_RATES if LOSSES[self.loss].proxies == "none" else PROXY_RATES

    def trial(self, rates: Rates, seed: int, steps: int, ratio: float = 1.0) -> Trial:
        options = self.options
        return Trial(
            loss=self.loss, options=options, start=self.start, rates=rates, seed=seed, steps=steps, ratio=ratio
        )


DYNAMIC = "Proxy-NCA, dynamic, started from the data"
BOUNDED = ("Proxy-NCA", "Proxy-NCA, started from the data", "Proxy-NCA, as printed", "Proxy-Triplet")
"""Those whose bounds are reported: the losses of the proxies paper."""
CONTENDERS = [
    *(Contender(title=entry.title, loss=name) for name, entry in LOSSES.items() if entry.proxies != "dynamic"),
    Contender(title="Proxy-NCA, started from the data", loss="proxy-nca", start="data"),
    Contender(title=DYNAMIC, loss="dynamic-proxy-nca", start="data"),
    Contender(title="Lifted structure, scale 1 (as published)", loss="lifted-structure", options={"scale": 1.0}),
    Contender(title="N-pairs, scale 1 (as published)", loss="n-pairs", options={"scale": 1.0}),
    Contender(title="Proxy-NCA, as printed", loss="proxy-nca", options={"form": "paper"}),
    Contender(title="Proxy-NCA, label smoothing 0.1", loss="proxy-nca", options={"label_smoothing": 0.1}),
]


@cache
def open_context(out: Path, catalogue: Catalogue, seed: int) -> RunContext:
    recipe = Recipe(seed=seed, base_network_learns="no", model=EmbedderConfig(size=SIZE))
    return RunContext(Run(out / f"seed-{seed}"), catalogue, recipe)


def run_trial(out: Path, catalogue: Catalogue, trial: Trial) -> dict[str, Any]:
    place = out / "trials" / f"{trial.key}.json"
    if place.exists():
        result: dict[str, Any] = json.loads(place.read_text())
        return result
    torch.set_num_threads(1)  # two trainings side by side are faster than one on two cores
    work = open_context(out, catalogue, trial.seed)
    loop = LabelLoopConfig(
        epochs=1,
        min_steps=trial.steps,
        learning_rate=trial.rates[0],
        proxy_learning_rate=trial.rates[1],
        evaluations=TUNING_LOOKS if trial.tuning else LOOKS,
        batch_size=128,
        images_per_product=4,
    )
    config = SpecialistsConfig(
        loss=trial.loss,
        loss_options=trial.options,
        proxies_per_product=trial.ratio,
        proxy_start=trial.start if LOSSES[trial.loss].has_bank else "data",
        loop=loop,
    )
    folder = work.run.path / "work" / trial.key
    job = label_job(work, config, np.ones(len(work.images.catalogue), bool), folder=folder)
    test = np.flatnonzero((work.images.splits == "test") & (work.images.products >= 0))
    watch = job.monitor

    products, names, queries = work.images.products[test], work.images.names_of(test), work.images.asking(test)

    def monitor() -> Mapping[str, float]:
        vectors = work.features.source.embed_all(job.embedder, test)
        return {
            "test_recall_at_1": float(query_outcomes(vectors, products, names, queries=queries).merged.hits(1).mean()),
            **(watch() if watch else {}),
        }

    started = time.perf_counter()
    job = replace(job, monitor=None if trial.tuning else monitor)
    record = work.stages.learn(trial.key, job, folder)
    result = {"trial": asdict(trial), "record": record}
    if not trial.tuning:
        result["evaluation"] = to_plain(
            evaluate_vectors(
                work.features.source.embed_all(job.embedder, test),
                list(work.images.catalogue.column("product")[test]),
                names,
                queries=queries,
                resamples=1,
                seed=trial.seed,
            )
        )
    result["seconds"] = time.perf_counter() - started
    place.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(place, json.dumps(result))
    print(
        f"{trial.loss} {trial.options or ''} rates {trial.rates} ratio {trial.ratio:g} seed {trial.seed}: "
        f"val {record['best_score']:.4f}, {result['seconds']:.0f} s",
        flush=True,
    )
    return result


class Bench:
    """Runs trials side by side, each once."""

    def __init__(self, out: Path, catalogue: Catalogue, processes: int) -> None:
        self._out, self._catalogue, self._processes = out, catalogue, processes

    def run(self, trials: list[Trial]) -> list[dict[str, Any]]:
        for seed in sorted({trial.seed for trial in trials}):
            _ = open_context(
                self._out, self._catalogue, seed
            ).features.source  # features first: the trainings share them
        open_context.cache_clear()
        spawn = multiprocessing.get_context("spawn")
        with spawn.Pool(self._processes) as pool:
            return pool.starmap(run_trial, [(self._out, self._catalogue, trial) for trial in trials], chunksize=1)

    def tune(self, contenders: list[Contender], steps: int, seed: int) -> dict[str, Rates]:
        """The rates of the best validation score, one run each."""
        trials = [one.trial(rates, seed, steps) for one in contenders for rates in one.search]
        results = iter(self.run([replace(trial, tuning=True) for trial in trials]))
        best = {}
        for one in contenders:
            scores = {rates: next(results)["record"]["best_score"] for rates in one.search}
            best[one.title] = max(scores, key=lambda rates: scores[rates])
        return best


def spread(values: list[float], *, scale: float = 100, digits: int = 1) -> str:
    mean = f"{scale * statistics.mean(values):.{digits}f}"
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def rates_of(rates: Rates, search: tuple[Rates, ...]) -> str:
    return f"{rates[0]:g}" if search is POINT_RATES else f"{rates[0]:g} and {rates[1]:g}"


def recall_curve(result: dict[str, Any]) -> list[tuple[int, float]]:
    """Test R@1 against steps."""
    return [(int(step), value) for step, value in result["record"]["monitor_curves"]["test_recall_at_1"]]


def steps_to(curve: list[tuple[int, float]], level: float) -> int | None:
    return next((step for step, value in curve if value >= level), None)


def losses_part(bench: Bench, seeds: list[int], steps: int) -> tuple[list[str], dict[str, Any]]:
    rates = bench.tune(CONTENDERS, steps, seeds[0])
    found = bench.run([one.trial(rates[one.title], seed, steps) for one in CONTENDERS for seed in seeds])
    rows = {one.title: found[i * len(seeds) : (i + 1) * len(seeds)] for i, one in enumerate(CONTENDERS)}
    lines = [
        "| loss | R@1 | R@2 | R@4 | R@8 | NMI | mean within R@1 | head, proxy rate |",
        "|---|---|---|---|---|---|---|---|",
    ]
    figure = _merged_figure
    searches = {one.title: one.search for one in CONTENDERS}
    order = sorted(rows, key=lambda title: statistics.mean(map(figure("1"), rows[title])))
    for title in order:
        results = rows[title]
        recalls = [spread([figure(k)(result) for result in results]) for k in ("1", "2", "4", "8")]
        nmis = [nmi["value"] for result in results if (nmi := result["evaluation"]["merged"]["nmi"])]
        nmi = spread(nmis) if nmis else ""
        within = spread([result["evaluation"]["mean_within"]["recall_at_1"] for result in results])
        lines.append(
            f"| {title} | {' | '.join(recalls)} | {nmi} | {within} | {rates_of(rates[title], searches[title])} |"
        )
    curves = {title: [recall_curve(result) for result in results] for title, results in rows.items()}
    triplet = curves[LOSSES["triplet"].title]
    levels = [statistics.mean(value for _, value in curve[-3:]) for curve in triplet]
    reached = [steps_to(curve, level) for curve, level in zip(triplet, levels, strict=True)]
    lines += [
        "",
        f"Steps until test R@1 is where the triplet loss ends with the same seed (mean of its last three looks: "
        f"{spread(levels)}), looked at every {steps // LOOKS} steps, and how many times sooner than the triplet loss "
        "itself:",
        "",
        "| loss | steps | times sooner |",
        "|---|---|---|",
    ]
    for title in order[::-1]:
        at = [steps_to(curve, level) for curve, level in zip(curves[title], levels, strict=True)]
        if any(step is None for step in at):
            lines.append(f"| {title} | not reached by {at.count(None)} of {len(at)} seeds | |")
            continue
        factors = [own / step for own, step in zip(reached, at, strict=True) if own and step]
        steps_text = spread([float(step) for step in at if step], scale=1, digits=0)
        lines.append(f"| {title} | {steps_text} | {spread(factors, scale=1)} |")
    bounds = {
        title: mean_curves([result["record"]["monitor_curves"] for result in results])
        for title, results in rows.items()
        if title in BOUNDED
    }
    lines += ["", *bounds_table(bounds)]
    means = {title: mean_curves([{"": curve} for curve in found])[""] for title, found in curves.items()}
    return lines, {"curves": means, "bounds": bounds, "rates": rates}


def mean_curves(seeds: Sequence[Mapping[str, Sequence[Sequence[float]]]]) -> dict[str, list[tuple[float, float]]]:
    """Each watched figure against steps, mean over seeds."""
    return {
        name: [
            (points[0][0], statistics.mean(value for _, value in points))
            for points in zip(*(curves[name] for curves in seeds), strict=True)
        ]
        for name in seeds[0]
    }


def bounds_table(bounds: dict[str, dict[str, list[tuple[float, float]]]]) -> list[str]:
    """How tight the proxies' bounds are at the first look and at the last."""
    names = ("eps_mean", "nca_tightness", "triplet_tightness", "order_preserved")
    lines = [
        "Bounds on 512 training images, at the first look and the last, mean over seeds (tightness: bound minus loss, "
        "0 is tight):",
        "",
        "| loss | mean eps | tightness of the NCA bound | of the triplet bound | triplets whose order is kept, % |",
        "|---|---|---|---|---|",
    ]
    for title, curves in bounds.items():
        cells = []
        for name in names:
            factor = 100 if name == "order_preserved" else 1
            ends = [factor * curves[name][at][1] for at in (0, -1)] if name in curves else []
            cells.append(" to ".join(f"{end:.{1 if factor == 100 else 2}f}" for end in ends))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def _merged_figure(k: str) -> Callable[[dict[str, Any]], float]:
    return lambda result: float(result["evaluation"]["merged"]["recall_at"][k]["value"])


def ratios_part(
    bench: Bench, seeds: list[int], steps: int, rates: Mapping[str, Rates]
) -> tuple[list[str], dict[str, Any]]:
    by_title = {one.title: one for one in CONTENDERS}
    titles = {
        "static, random start": LOSSES["proxy-nca"].title,
        "static, started from the data": "Proxy-NCA, started from the data",
        "dynamic, started from the data": DYNAMIC,
    }
    kinds = {kind: (by_title[title], rates[title]) for kind, title in titles.items()}
    kinds["dynamic, random start"] = (replace(by_title[DYNAMIC], start="random"), rates[DYNAMIC])
    random_first = replace(by_title[DYNAMIC], start="random-assignment")
    kinds["dynamic, images at random proxies first"] = (random_first, rates[DYNAMIC])
    found = iter(
        bench.run(
            [one.trial(at, seed, steps, ratio) for one, at in kinds.values() for ratio in RATIOS for seed in seeds]
        )
    )
    header = " | ".join(f"{ratio:g}" for ratio in RATIOS)
    lines = [f"| assignment | {header} |", "|---" * (len(RATIOS) + 1) + "|"]
    plots: dict[str, Any] = {}
    for kind in kinds:
        values = [[_merged_figure("1")(next(found)) for _ in seeds] for _ in RATIOS]
        lines.append(f"| {kind} | " + " | ".join(spread(one) for one in values) + " |")
        plots[kind] = values
    return lines, plots


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(".work/bench-proxies"))
    parser.add_argument("--catalogue", type=Path, help="another than the emoji catalogue")
    parser.add_argument("--result", default="proxies")
    options = parser.parse_args()
    reuse_freed_memory()
    catalogue = Catalogue.open(options.catalogue) if options.catalogue else emoji_catalogue()
    bench = Bench(options.out, catalogue, options.processes)
    started = time.perf_counter()
    loss_lines, plots = losses_part(bench, options.seeds, options.steps)
    ratio_lines, ratios = ratios_part(bench, options.seeds, options.steps, plots["rates"])
    write_atomic(options.out / "plots.json", json.dumps({**plots, "ratios": ratios}))
    point_rates = ", ".join(rates_of(rates, POINT_RATES) for rates in POINT_RATES)
    proxy_rates = ", ".join(rates_of(rates, PROXY_RATES) for rates in PROXY_RATES)
    lines = [
        f"# Losses on the {catalogue.path.stem} catalogue",
        "",
        f"{SIZE}-d, frozen base network, {options.steps} batches of 32 products x 4 images, test split, one gallery of "
        "all verticals, per cent, mean ± standard deviation over seeds "
        f"{', '.join(map(str, options.seeds))}. Learning rates: the best of eight trials by validation MAP@R with seed "
        f"{options.seeds[0]}; for losses on data points the head's of {point_rates}; for the "
        f"others the head's and the proxies' of {proxy_rates}. All other options are the "
        "losses' defaults.",
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
    write_atomic(RESULTS / f"{options.result}.md", "\n".join(lines) + "\n")
    print("\n".join(lines))

    if options.catalogue:
        return
    from proxy_plots import draw

    draw(json.loads((options.out / "plots.json").read_text()), RATIOS, Path("docs/images"))


if __name__ == "__main__":
    main()
