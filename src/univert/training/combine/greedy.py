"""Which verticals to train together: greedily, by what a trial does to each of them (Unified, Tables 1 and 2).

Start with a vertical; add others one at a time while no vertical of the group is worse than under its own specialist;
those that were refused wait for the next group. How a trial is trained and measured is none of this module's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from univert.metrics.compare import METRICS, Difference, Metric, compare_pairs
from univert.metrics.per_query import average_precision
from univert.metrics.ranking import QueryOutcome

Group = tuple[str, ...]
Measured = Mapping[str, QueryOutcome]
"""What happened to the queries of each vertical, searched within it; a vertical without queries is absent."""

Measure = Callable[[Group], Measured]
"""Trains one model on some verticals (or loads it), and measures it in each of them, on the same queries every time."""

Next = Callable[[Group, Sequence[str]], str]
"""Which of the candidates to try next with a group; with the empty group, which to start one with."""

SHORT: dict[Metric, str] = {"recall_at_1": "R@1", "map_at_r": "MAP@R"}


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

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        figures: dict[str, Any] = {
            metric: {name: values[metric].second for name, values in self.differences.items()} for metric in METRICS
        }
        differences = {
            name: {metric: value.to_dict() for metric, value in values.items()}
            for name, values in self.differences.items()
        }
        return {
            "number": self.number,
            "group": list(self.group),
            "added": self.added,
            "verticals": list(self.verticals),
            **figures,
            "differences": differences,
            "accepted": self.accepted,
            "reason": self.reason,
        }


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Says whether a vertical may join a group.

    The vertical is refused if any vertical of the trial is significantly worse than under its own specialist, in
    Recall@1 or in MAP@R: paired over the same queries, resampled by product, corrected by Holm's method over the
    verticals of the trial and by halving the chance of a false alarm for the two metrics.

    Attributes:
        measure: trains and measures.
        tolerance: a fall of a figure (0 to 1) up to this much is none.
        level: 1 - level is the chance that a trial without any harm is refused.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    measure: Measure
    tolerance: float
    level: float
    resamples: int = 2000
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
                level=1 - (1 - self.level) / len(METRICS),
                resamples=self.resamples,
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
    falls = [f"{name} ({_change(difference)}, p {difference.p_adjusted:.2g})" for name, difference in worse]
    return f"significantly worse than its own specialist: {', '.join(falls)}"


def _acceptance(differences: dict[str, dict[Metric, Difference]]) -> str:
    if not differences:
        return "none of these verticals has queries: no harm could be seen"
    name = min(differences, key=lambda name: differences[name]["recall_at_1"].difference)
    change = _change(differences[name]["recall_at_1"])
    return f"none is significantly worse; the least gain is that of {name}, {change}"


def _change(difference: Difference) -> str:
    return f"{SHORT[difference.metric]} {100 * difference.first:.1f} to {100 * difference.second:.1f}"


def greedy_groups(
    verticals: Sequence[str], choose: Next, judge: Callable[[int, Group, str], Trial], *, trials: int
) -> tuple[tuple[Group, ...], tuple[Trial, ...], tuple[str, ...]]:
    """Form groups until every vertical has one.

    Args:
        verticals: to be placed, each once.
        choose: the order.
        judge: called with the trial's number, the group and the vertical to add.
        trials: how many trials there may be; once they are spent, the verticals that are left stay by themselves.

    Returns:
        the groups in the order they were formed, the trials, and the path taken, for people.
    """
    left, groups, done = list(verticals), [], list[Trial]()
    path: list[str] = []
    while left:
        group: Group = (choose((), left),)
        left.remove(group[0])
        candidates = list(left)
        while candidates and len(done) < trials:
            added = choose(group, candidates)
            candidates.remove(added)
            trial = judge(len(done) + 1, group, added)
            done.append(trial)
            sign, verdict = ("+", "accepted") if trial.accepted else ("-", "refused")
            path.append(f"{' + '.join(group)} {sign} {added}: {verdict}; {trial.reason}")
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


def easiest_first(individual: Mapping[str, tuple[float, float]]) -> Next:
    """By learning difficulty: the vertical whose own specialist does best comes first, unmeasured ones come last.

    Args:
        individual: Recall@1 and MAP@R of the specialists; ties go by name.
    """

    def choose(group: Group, candidates: Sequence[str]) -> str:
        return min(candidates, key=lambda name: (*(-value for value in individual.get(name, (-1, -1))), name))

    return choose


def nearest_centroid(centroids: Mapping[str, np.ndarray], images: Mapping[str, int]) -> Next:
    """By centroid: the vertical nearest to the group comes next; a group starts with the one that has most images.

    Args:
        centroids: (F,) mean of each vertical's images in the untrained base network's space.
        images: how many there are; a group's centroid is the mean over all of its images.
    """

    def choose(group: Group, candidates: Sequence[str]) -> str:
        if not group:
            return min(candidates, key=lambda name: (-images[name], name))
        centre = np.average([centroids[name] for name in group], axis=0, weights=[images[name] for name in group])
        return min(candidates, key=lambda name: (float(np.linalg.norm(centroids[name] - centre)), name))

    return choose


def figures_of(outcome: QueryOutcome) -> tuple[float, float]:
    """Recall@1 and MAP@R of some queries."""
    return float(outcome.hits(1).mean()), float(average_precision(outcome).mean())
