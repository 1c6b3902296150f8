"""Which verticals were trained together, as the document shows it: Tables 1 and 2, and the path taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from univert.metrics.compare import METRIC_NAMES, METRICS, Difference
from univert.report.differences import interval_words, read_part
from univert.report.number_format import points

_MODES = {"probe": "trained as heads on cached features of the frozen base network", "full": "trained in full"}
_ORDERS = {"difficulty": "the easiest first", "centroids": "the nearest first"}


@dataclass(frozen=True, kw_only=True)
class TrialCell:
    """One vertical in one trial.

    Attributes:
        value: its Recall@1, a share of 1; None where it took no part or has no queries.
        change: against its own specialist in points, signed; None for the specialist itself.
        worse: whether it is significantly worse in Recall@1.
        precision: the change of MAP@R in points, where that is significantly worse; else None.
        words: the differences with their intervals.
    """

    value: float | None
    change: str | None = None
    worse: bool = False
    precision: str | None = None
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class TrialLine:
    """A trial: a vertical tried with a group.

    Attributes:
        number: from 1.
        group: before the trial.
        added: the vertical tried.
        accepted: whether it joined.
        reason: why, or why not.
        cells: one a column.
    """

    number: int
    group: tuple[str, ...]
    added: str
    accepted: bool
    reason: str
    cells: tuple[TrialCell, ...]


@dataclass(frozen=True, kw_only=True)
class GroupLine:
    """A group that was found.

    Attributes:
        number: from 1, in the order they were formed.
        verticals: its members in the order they joined.
        refused: those tried and refused, each with the reason.
    """

    number: int
    verticals: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class CombinationSection:
    """What the page shows of the combination.

    Attributes:
        how: the way of deciding, in words.
        columns: the verticals, group by group.
        individual: Recall@1 of each column's own specialist.
        trials: in order.
        groups: in order.
        path: the path in sentences.
        budget: how many trials there could be; None if unknown.
    """

    how: str
    columns: tuple[str, ...]
    individual: tuple[TrialCell, ...]
    trials: tuple[TrialLine, ...]
    groups: tuple[GroupLine, ...]
    path: tuple[str, ...]
    budget: int | None


def read_combination(results: Mapping[str, Any]) -> CombinationSection | None:
    """`results["combination"]`; None where there is none.

    Raises:
        BadInputError: it is not what a run writes.
    """
    return read_part(results, "combination", _combination)


def _combination(values: Mapping[str, Any]) -> CombinationSection:
    groups = [tuple(group) for group in values["groups"]]
    individual = values.get("individual") or {}
    columns = list(dict.fromkeys([*(name for group in groups for name in group), *individual]))
    trials = tuple(_trial(trial, columns) for trial in values.get("trials") or ())
    how = [_MODES.get(values.get("mode", ""), ""), _ORDERS.get(values.get("order", ""), "")]
    return CombinationSection(
        how=", ".join(word for word in how if word),
        columns=tuple(columns),
        individual=tuple(TrialCell(value=(individual.get(name) or {}).get("recall_at_1")) for name in columns),
        trials=trials,
        groups=tuple(
            GroupLine(number=number, verticals=group, refused=_refused(group, trials))
            for number, group in enumerate(groups, start=1)
        ),
        path=tuple(values.get("path") or ()),
        budget=values.get("budget_trials"),
    )


def _trial(trial: Mapping[str, Any], columns: Sequence[str]) -> TrialLine:
    return TrialLine(
        number=int(trial["number"]),
        group=tuple(trial["group"]),
        added=trial["added"],
        accepted=bool(trial["accepted"]),
        reason=trial.get("reason") or "",
        cells=tuple(
            _cell(trial["recall_at_1"].get(name), (trial.get("differences") or {}).get(name) or {}) for name in columns
        ),
    )


def _cell(value: float | None, differences: Mapping[str, Any]) -> TrialCell:
    if value is None:
        return TrialCell(value=None)
    read = {metric: Difference.from_dict(differences[metric]) for metric in METRICS if metric in differences}
    recall, precision = read.get("recall_at_1"), read.get("map_at_r")
    return TrialCell(
        value=float(value),
        change=None if recall is None else points(recall.difference),
        worse=recall is not None and recall.verdict == "worse",
        precision=points(precision.difference) if precision and precision.verdict == "worse" else None,
        words="; ".join(
            f"{METRIC_NAMES[metric]} {points(one.difference)}, interval {interval_words(one)}"
            for metric, one in read.items()
        ),
    )


def _refused(group: tuple[str, ...], trials: Sequence[TrialLine]) -> tuple[tuple[str, str], ...]:
    """The verticals refused by a group: the trials that started from it or from how it began."""
    return tuple(
        (trial.added, trial.reason)
        for trial in trials
        if not trial.accepted and trial.group == group[: len(trial.group)]
    )
