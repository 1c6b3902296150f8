"""Combine: which verticals are trained together, decided by paired comparison of trials (Unified, Tables 1 and 2).

Try all verticals at once: if none is worse than under its own specialist, they are one group. Otherwise start with a
vertical; add others one at a time while no vertical of the group is worse; those that were refused wait for the next
group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from univert.metrics.compare import METRICS, Difference, Metric, compare_pairs
from univert.metrics.per_query import average_precision
from univert.metrics.ranking import QueryOutcome
from univert.training.combine.config import CombineConfig
from univert.training.combine.folds import Measured
from univert.training.run_context import RunContext

LEVEL = 0.95
"""1 - LEVEL is the chance that a trial which does no harm is refused."""
RESAMPLES = 2000
Group = tuple[str, ...]
Measure = Callable[[Group], Measured]
"""Trains one model on some verticals (or loads it), and measures it in each of them, on the same queries every time."""

SHORT: dict[Metric, str] = {"recall_at_1": "R@1", "map_at_r": "MAP@R"}


@dataclass(frozen=True, kw_only=True)
class Combination:
    """The groups, and how they were found.

    Attributes:
        config: the recipe's choices.
        groups: every vertical in one of them; in the order they were formed.
        individual: `recall_at_1`, `map_at_r` and `queries` of each vertical's own specialist; None where it has none.
        trials: in the order they were made.
        path: one line a step, for people.
    """

    config: CombineConfig
    groups: tuple[Group, ...]
    individual: Mapping[str, Mapping[str, float] | None]
    trials: tuple[Trial, ...] = ()
    path: tuple[str, ...] = ()


def combine(context: RunContext) -> Combination:
    """Decide which verticals are trained together, as the recipe's `combine` says.

    Trials are stages of the run: started again it goes on where it was, and a trial is made once.

    Raises:
        TrainingError: a trial failed.
    """
    config, names = context.recipe.combine, context.images.vertical_names
    if config.mode == "off" or len(names) == 1:
        why = "combination is off" if config.mode == "off" else "there is one vertical alone"
        return Combination(
            config=config,
            groups=tuple((name,) for name in names),
            individual=dict.fromkeys(names),
            path=(f"{why}: every vertical by itself",),
        )
    from univert.training.combine.probe import Probe, full_measure

    measure = Probe(context) if config.mode == "probe" else full_measure(context)
    return combine_by(measure, names, config, seed=context.recipe.seed)


def combine_by(measure: Measure, names: Sequence[str], config: CombineConfig, *, seed: int) -> Combination:
    """Decide by any way of training and measuring; see `combine`."""
    individual = {name: _figures(measure((name,)).get(name)) for name in names}
    unmeasured = [name for name in names if individual[name] is None]
    judge = Judge(measure=measure, tolerance=config.tolerance, seed=seed)
    figures = {name: found for name, found in individual.items() if found}
    easiest_first = sorted(figures, key=lambda name: (*(-figures[name][metric] for metric in METRICS), name))
    groups, trials, path = greedy_groups(easiest_first, judge, trials=config.trials)
    alone = [f"{name} has no queries, so no harm to it could be seen: by itself" for name in unmeasured]
    found = (*groups, *((name,) for name in unmeasured))
    return Combination(
        config=config,
        groups=found,
        individual=individual,
        trials=trials,
        path=(*path, *alone, f"groups: {'; '.join(', '.join(group) for group in found)}"),
    )


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One vertical tried with a group.

    Attributes:
        number: from 1, in the order of the trials.
        group: before the trial.
        added: the vertical that was tried with it.
        differences: by vertical and metric, joint model minus own specialist; verticals without queries are absent.
        accepted: whether the vertical joined the group.
        reason: why, for people.
    """

    number: int
    group: Group
    added: str
    differences: dict[str, dict[Metric, Difference]]
    accepted: bool
    reason: str

    @property
    def verticals(self) -> Group:
        """All that were trained together."""
        return (*self.group, self.added)

    @property
    def outcome(self) -> str:
        """Whether the vertical joined and why, for people."""
        return f"{'accepted' if self.accepted else 'refused'}; {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Says whether a vertical may join a group.

    The vertical is refused if any vertical of the trial is significantly worse than under its own specialist, in
    Recall@1 or in MAP@R: paired over the same queries, resampled by product, corrected by Holm's method over the
    verticals of the trial and by halving the chance of a false alarm for the two metrics.

    Attributes:
        measure: trains and measures.
        tolerance: a figure (0 to 1) that is lower by up to this much counts as the same.
        seed: of the bootstrap.
    """

    measure: Measure
    tolerance: float
    seed: int = 0

    def __call__(self, number: int, group: Group, added: str) -> Trial:
        """Try a vertical with a group."""
        verticals = (*group, added)
        joint = self.measure(verticals)
        own = {name: found for vertical in verticals for name, found in self.measure((vertical,)).items()}
        judged = [name for name in verticals if name in joint and name in own]
        differences: dict[str, dict[Metric, Difference]] = {}
        if judged:
            differences = compare_pairs(
                {name: (own[name], joint[name]) for name in judged},
                tolerance=self.tolerance,
                level=1 - (1 - LEVEL) / len(METRICS),
                resamples=RESAMPLES,
                seed=self.seed,
            )
        worse = [
            (name, values[metric])
            for name, values in differences.items()
            for metric in METRICS
            if values[metric].verdict == "worse"
        ]
        return Trial(
            number=number,
            group=group,
            added=added,
            differences=differences,
            accepted=not worse,
            reason=_refusal(worse) if worse else _acceptance(differences),
        )


def _refusal(worse: list[tuple[str, Difference]]) -> str:
    worse_by = [f"{name} ({_change(difference)}, p {difference.p_adjusted:.2g})" for name, difference in worse]
    return f"significantly worse than its own specialist: {', '.join(worse_by)}"


def _acceptance(differences: dict[str, dict[Metric, Difference]]) -> str:
    if not differences:
        return "none of these verticals has queries: no harm could be seen"
    name = min(differences, key=lambda name: differences[name]["recall_at_1"].difference)
    change = _change(differences[name]["recall_at_1"])
    return f"none is significantly worse; the least gain is that of {name}, {change}"


def _change(difference: Difference) -> str:
    return f"{SHORT[difference.metric]} {100 * difference.first:.1f} to {100 * difference.second:.1f}"


def greedy_groups(
    verticals: Sequence[str], judge: Callable[[int, Group, str], Trial], *, trials: int
) -> tuple[tuple[Group, ...], tuple[Trial, ...], tuple[str, ...]]:
    """Form groups until every vertical has one; one trial of all of them may do.

    The verticals are tried in the order given. The judge is called with the trial's number, the group and the vertical
    to add. Once so many trials are spent, the verticals that are left stay by themselves.

    Returns:
        the groups in the order they were formed, the trials, and the path taken, for people.
    """
    left, groups, done = list(verticals), [], list[Trial]()
    path: list[str] = []
    if len(left) > 2 and trials:
        done.append(judge(1, tuple(left[:-1]), left[-1]))
        path.append(f"all together: {done[0].outcome}")
        if done[0].accepted:
            groups, left = [tuple(left)], []
    while left:
        group: Group = (left.pop(0),)
        candidates = list(left)
        while candidates:
            added = candidates[0]
            if done and (*group, added) == done[0].verticals:
                candidates = []  # all together was refused before
                break
            if len(done) == trials:
                break
            del candidates[0]
            trial = judge(len(done) + 1, group, added)
            done.append(trial)
            path.append(f"{' + '.join(group)} {'+' if trial.accepted else '-'} {added}: {trial.outcome}")
            if trial.accepted:
                group = (*group, added)
                left.remove(added)
        groups.append(group)
        if candidates:
            groups += [(name,) for name in left]
            path.append(
                f"the budget of {trials} trials is spent: {', '.join(left)} by themselves, untried from here on"
            )
            left = []
    return tuple(groups), tuple(done), tuple(path)


def _figures(outcome: QueryOutcome | None) -> dict[str, float] | None:
    if outcome is None:
        return None
    recall, precision = float(outcome.hits(1).mean()), float(average_precision(outcome).mean())
    return {"recall_at_1": recall, "map_at_r": precision, "queries": len(outcome)}
