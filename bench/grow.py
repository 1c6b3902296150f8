"""Growing a deployed model three times in a row on the emoji catalogue: the tables of docs/grow.md.

    python bench/grow.py [--seeds 0 1 2] [--out .work/bench-grow]

Six verticals are deployed, three are added one after the other. Every growth is forced, so that all chains go to their
end. Writes bench/results/grow.md. Started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from common import emoji_catalogue, per_cent
from univert.core.allocator import reuse_freed_memory
from univert.core.files import write_atomic
from univert.data.catalogue import Catalogue
from univert.main_job import train
from univert.metrics.compare import Difference, Figures, Metric
from univert.metrics.compatibility import GrowthFigures
from univert.training.grow.checks import refusal_of
from univert.training.grow.config import GrowConfig
from univert.training.grow.growing import grow
from univert.training.recipe import DataConfig, EvaluationConfig, Recipe

RESULT = Path(__file__).parent / "results" / "grow.md"
ADDED = ("objects", "symbols", "travel-places")
Chain = list[dict[str, GrowthFigures]]


def deployed_run(catalogue: Catalogue, path: Path, seed: int) -> None:
    """Train the six verticals, unless that is done."""
    if not (path / "unified" / "config.json").exists():
        old = tuple(name for name in catalogue.verticals if name not in ADDED)
        recipe = Recipe(
            seed=seed,
            base_network_learns="no",
            data=DataConfig(verticals=old),
            evaluation=EvaluationConfig(baselines=(), resamples=100),
        )
        train(catalogue, path, recipe, report=False)


def grown_chain(catalogue: Catalogue, deployed: Path, path: Path) -> Chain:
    """Grow a copy of a run three times."""
    if not path.exists():
        temporary = path.with_suffix(".partial")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        shutil.copytree(deployed / "unified", temporary / "unified")
        for name in ("recipe.toml", "groups.json"):
            shutil.copy(deployed / name, temporary / name)
        temporary.rename(path)
    chain = []
    for number, vertical in enumerate(ADDED, start=1):
        chain.append(grow(path, catalogue, vertical, force=True).figures)
        print(path.parent.name, vertical, *(cells([chain], split, number) for split in ("val", "test")), flush=True)
    return chain


def originals(figures: GrowthFigures, added: Sequence[str]) -> tuple[float, float]:
    """Old-old and new-old Recall@1 over the queries of the verticals that were deployed first."""
    kept = [figures.kept.verticals[name]["recall_at_1"] for name in figures.kept.verticals if name not in added]
    queries = sum(each.queries for each in kept)
    return (
        sum(each.first * each.queries for each in kept) / queries,
        sum(each.second * each.queries for each in kept) / queries,
    )


def cells(chains: list[Chain], split: str, number: int) -> str:
    """What one growth did: original verticals, all old ones, the new one, the merged gallery."""
    figures = [chain[number - 1][split] for chain in chains]
    pairs = [originals(each, ADDED) for each in figures]

    def of(function: Callable[[GrowthFigures], Figures | None], metric: Metric = "recall_at_1") -> list[Difference]:
        return [found[metric] for each in figures if (found := function(each)) is not None]

    all_old = of(lambda each: each.old)
    new = of(lambda each: each.kept.verticals[each.new_vertical])
    specialist = of(lambda each: each.specialist)
    merged = of(lambda each: each.old_merged)
    anew = of(lambda each: each.old_merged_reindexed)
    beside = of(lambda each: each.beside_new)
    everything = of(lambda each: each.kept.merged)
    return " | ".join(
        [
            per_cent([first for first, _ in pairs]),
            per_cent([second - first for first, second in pairs], sign=True),
            per_cent([each.difference for each in all_old], sign=True),
            per_cent([each.difference for each in merged], sign=True),
            per_cent([each.difference for each in of(lambda each: each.old_merged, "map_at_r")], sign=True),
            per_cent([each.difference for each in anew], sign=True),
            per_cent([each.difference for each in beside], sign=True),
            per_cent([each.difference for each in everything], sign=True),
            per_cent([each.first for each in new]),
            per_cent([each.first for each in specialist]),
            per_cent([each.second for each in specialist]),
            per_cent([each.difference for each in specialist], sign=True),
        ]
    )


def table(chains: list[Chain], split: str) -> list[str]:
    lines = [
        "| growth | originals old-old | new-old | all old, new-old | old merged, new-old | the same, MAP@R | "
        "re-indexing would add | old queries beside the new images | all merged | new vertical: deployed "
        "| its specialist | grown | grown - specialist |",
        "|---" * 13 + "|",
    ]
    for number, vertical in enumerate(ADDED, start=1):
        lines.append(f"| {number}: {vertical} | {cells(chains, split, number)} |")
    return lines


def gate(chains: list[Chain], seeds: Sequence[int]) -> list[str]:
    """What the validation split said of each growth, which all were forced."""
    lines = ["| seed | growth | published, had it not been forced |", "|---" * 3 + "|"]
    for seed, chain in zip(seeds, chains, strict=True):
        for vertical, figures in zip(ADDED, chain, strict=True):
            refusal = refusal_of(figures["val"], limit=GrowConfig().limit)
            lines.append(f"| {seed} | {vertical} | {'yes' if refusal is None else f'no: {refusal}'} |")
    return lines


def per_vertical(chains: list[Chain], split: str) -> list[str]:
    """After the last growth, vertical by vertical."""
    lines = ["| vertical | old-old | new-old | difference | new-new | verdicts |", "|---" * 6 + "|"]
    last = [chain[-1][split] for chain in chains]
    for name in last[0].kept.verticals:
        kept = [each.kept.verticals[name]["recall_at_1"] for each in last]
        anew = [each.reindexed.verticals[name]["recall_at_1"] for each in last]
        lines.append(
            f"| {name}{' (new)' if name == ADDED[-1] else ''} | {per_cent([each.first for each in kept])} "
            f"| {per_cent([each.second for each in kept])} | {per_cent([each.difference for each in kept], sign=True)} "
            f"| {per_cent([each.second for each in anew])} | {', '.join(each.verdict for each in kept)} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path(".work/bench-grow"))
    options = parser.parse_args()
    reuse_freed_memory()
    catalogue = emoji_catalogue()
    chains: list[Chain] = []
    for seed in options.seeds:
        folder = options.out / f"seed-{seed}"
        deployed_run(catalogue, folder / "deployed", seed)
        chains.append(grown_chain(catalogue, folder / "deployed", folder / "grown"))
    lines = [
        "# Growing three times in a row",
        "",
        f"Sample, six verticals deployed, then {', '.join(ADDED)} one after the other; Recall@1, per cent, mean ± "
        f"standard deviation over seeds {', '.join(map(str, options.seeds))}. Old-old: the vectors that were indexed "
        "search each other; new-old: the newest model's queries search them.",
    ]
    for split in ("val", "test"):
        lines += ["", f"## {split}", "", *table(chains, split)]
    lines += ["", "## After three growths, by vertical (test)", "", *per_vertical(chains, "test")]
    lines += ["", "## What the gate said", "", *gate(chains, options.seeds)]
    write_atomic(RESULT, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
