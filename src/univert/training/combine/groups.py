"""Combine: which verticals are trained together, decided by paired comparison of trials (Unified, Tables 1 and 2)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from univert.core.config import to_plain
from univert.core.files import fingerprint
from univert.metrics.compare import METRICS
from univert.metrics.ranking import QueryOutcome
from univert.training.combine.config import CombineConfig
from univert.training.combine.folds import Embed, Folds, outcomes_from_dict, outcomes_to_dict
from univert.training.combine.greedy import (
    Group,
    Judge,
    Measure,
    Measured,
    Next,
    Trial,
    easiest_first,
    figures_of,
    greedy_groups,
    nearest_centroid,
)
from univert.training.combine.probe import Probe
from univert.training.jobs import TrainedModel
from univert.training.run_context import RunContext
from univert.training.specialists import held_out_name, train_held_out, train_specialist, train_trial, trial_name


@dataclass(frozen=True, kw_only=True)
class Combination:
    """The groups, and how they were found.

    Attributes:
        config: the recipe's choices.
        groups: every vertical in one of them; in the order they were formed.
        individual: Recall@1, MAP@R and number of queries of each vertical's own specialist; None where it has none.
        trials: in the order they were made.
        path: one line a step, for people.
    """

    config: CombineConfig
    groups: tuple[Group, ...]
    individual: Mapping[str, tuple[float, float, int] | None]
    trials: tuple[Trial, ...] = ()
    path: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON: the content of `groups.json`."""
        names = (*METRICS, "queries")
        individual = {
            vertical: dict(zip(names, figures or (None, None, 0), strict=True))
            for vertical, figures in self.individual.items()
        }
        return {
            "mode": self.config.mode,
            "order": self.config.order,
            "folds": self.config.folds,
            "tolerance": self.config.tolerance,
            "level": self.config.level,
            "budget_trials": self.config.trials,
            "groups": [list(group) for group in self.groups],
            "individual": individual,
            "trials": [trial.to_dict() for trial in self.trials],
            "path": list(self.path),
        }

    def group_of(self, vertical: str) -> Group:
        """The group that a vertical is in.

        Raises:
            KeyError: it is in none.
        """
        for group in self.groups:
            if vertical in group:
                return group
        raise KeyError(vertical)


def combine(context: RunContext, specialists: Mapping[str, TrainedModel] | None = None) -> Combination:
    """Decide which verticals are trained together, as the recipe's `combine` says.

    Trials are stages of the run: started again it goes on where it was, and a trial is made once.

    Args:
        context: the run.
        specialists: by vertical, where they are trained already. With `mode = "full"` and `folds = 0` they are what
            the trials are held against (missing ones are trained); nothing else looks at them.

    Raises:
        TrainingError: a trial failed.
    """
    config, names = context.recipe.combine, context.vertical_names
    if config.mode == "off" or len(names) == 1:
        why = "combination is off" if config.mode == "off" else "there is one vertical alone"
        return Combination(
            config=config,
            groups=tuple((name,) for name in names),
            individual=dict.fromkeys(names),
            path=(f"{why}: every vertical by itself",),
        )
    measure = kept(Probe(context) if config.mode == "probe" else full_measure(context, specialists))
    return combine_by(measure, names, config, context)


def combine_by(measure: Measure, names: Sequence[str], config: CombineConfig, context: RunContext) -> Combination:
    """Decide by any way of training and measuring; see `combine`."""
    individual: dict[str, tuple[float, float, int] | None] = {}
    for name in names:
        outcome = measure((name,)).get(name)
        individual[name] = None if outcome is None else (*figures_of(outcome), len(outcome))
    unmeasured = [name for name in names if individual[name] is None]
    aside = unmeasured if config.unmeasured == "alone" else []
    choose = _order(context, individual)
    judge = Judge(measure=measure, tolerance=config.tolerance, level=config.level, seed=context.recipe.seed)
    placed = [name for name in names if name not in aside]
    groups, trials, path = greedy_groups(placed, choose, judge, trials=config.trials)
    alone = [f"{name} has no queries, so no harm to it could be seen: by itself" for name in aside]
    found = (*groups, *((name,) for name in aside))
    return Combination(
        config=config,
        groups=found,
        individual=individual,
        trials=trials,
        path=(*path, *alone, f"groups: {'; '.join(', '.join(group) for group in found)}"),
    )


def kept(measure: Measure) -> Measure:
    """The same, remembering what it has measured: the specialists are held against trial after trial."""
    memory: dict[frozenset[str], Measured] = {}

    def remembered(verticals: Group) -> Measured:
        key = frozenset(verticals)
        if key not in memory:
            memory[key] = measure(verticals)
        return memory[key]

    return remembered


def full_measure(context: RunContext, specialists: Mapping[str, TrainedModel] | None = None) -> Measure:
    """Trials that train as the specialists do; the measure behind `mode = "full"`.

    Args:
        context: the run.
        specialists: as in `combine`.
    """
    recipe = context.recipe
    folds = Folds(context, recipe.combine.folds)
    mapping = to_plain(recipe)
    inputs = fingerprint(
        context.base_fingerprint,
        {key: mapping[key] for key in ("seed", "trunk", "partial_blocks", "data", "model", "specialists")},
        recipe.combine.folds,
        *(["maps"] if context.keeps_maps else []),
    )

    def models(verticals: Group) -> Iterator[tuple[int, Embed]]:
        for training in range(folds.trainings):
            if recipe.combine.folds:
                model = train_held_out(context, verticals, folds.among(verticals, training), training=training)
            elif len(verticals) > 1:
                model = train_trial(context, verticals)
            else:
                model = (specialists or {}).get(verticals[0]) or train_specialist(context, verticals[0])
            yield training, partial(context.source.embed_all, model.embedder)

    def measure(verticals: Group) -> dict[str, QueryOutcome]:
        verticals = tuple(sorted(verticals))
        if not recipe.combine.folds:
            return folds.measure(verticals, models(verticals))
        # the models that leave products out serve this measure alone, so its outcome is what is kept
        record = context.remembered(
            f"{trial_name(verticals)}/measured",
            [inputs, *verticals],
            lambda: outcomes_to_dict(folds.measure(verticals, models(verticals))),
        )
        for training in range(folds.trainings):
            shutil.rmtree(context.run.path / held_out_name(verticals, training), ignore_errors=True)
        return outcomes_from_dict(record)

    return measure


def _order(context: RunContext, individual: Mapping[str, tuple[float, float, int] | None]) -> Next:
    if context.recipe.combine.order == "difficulty":
        return easiest_first({name: figures[:2] for name, figures in individual.items() if figures})
    centroids, images = {}, {}
    for name in context.vertical_names:
        here = np.flatnonzero(context.of_vertical(name) & context.is_train & (context.products >= 0))
        centroids[name] = context.base_vectors(here).mean(axis=0)
        images[name] = len(here)
    return nearest_centroid(centroids, images)


def combination_tables(combination: Combination) -> tuple[list[list[str]], list[list[str]]]:
    """The document's two tables, as rows of text for a console or a page.

    Returns:
        Table 1: Recall@1 of the specialists and of every combination tried, a column a vertical, its head first;
        Table 2: the groups.
    """
    names = list(combination.individual)
    own = [figures[0] if figures else None for figures in combination.individual.values()]
    first = [["model", *names, "verdict"], ["individual models", *map(_percent, own), ""]]
    for trial in combination.trials:
        cells = [trial.differences.get(name) for name in names]
        values = [None if cell is None else cell["recall_at_1"].second for cell in cells]
        verdict = "accepted" if trial.accepted else "refused"
        first.append([" + ".join(trial.verticals), *map(_percent, values), verdict])
    second = [["group", "verticals"]]
    second += [[str(number), ", ".join(group)] for number, group in enumerate(combination.groups, start=1)]
    return first, second


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
