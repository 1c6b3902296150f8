"""How the pipeline chose its model and the members of its learning targets, as the report shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from univert.metrics.compare import MERGED, METRIC_NAMES, Comparison, Difference
from univert.report.differences import (
    DifferenceChart,
    DifferenceLine,
    chart,
    chart_of,
    mark_of,
    read_part,
    scale_around_zero,
)
from univert.report.number_format import listing, points


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model that could be chosen.

    Attributes:
        title: its name.
        chosen: whether it was.
        recall_at_1: in the merged gallery; None if unknown, as all figures.
        map_at_r: likewise.
        mean_within: mean Recall@1 over the verticals.
        image_presentations: images shown in training, with those of the models it learned from.
        seconds: of training, likewise.
    """

    title: str
    chosen: bool
    recall_at_1: float | None
    map_at_r: float | None
    mean_within: float | None
    image_presentations: int | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One decision: whether a challenger takes the champion's place.

    Attributes:
        champion: its title.
        challenger: likewise.
        taken: whether the challenger was taken.
        reason: why, or why not.
        chart: challenger minus champion.
    """

    champion: str
    challenger: str
    taken: bool
    reason: str
    chart: DifferenceChart


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen and why.

    Attributes:
        split: the split that decided.
        title: of the chosen model.
        reason: in a sentence.
        candidates: all there were.
        steps: in order.
        against_specialists: in words; None where that was not measured.
    """

    split: str
    title: str
    reason: str
    candidates: tuple[Candidate, ...]
    steps: tuple[Step, ...]
    against_specialists: str | None


@dataclass(frozen=True, kw_only=True)
class Member:
    """A possible member of the learning targets' ensemble.

    Attributes:
        title: its name.
        kept: whether it is one.
        reason: why, or why not.
        image_presentations: what its training cost; None if it was not trained.
        line: what it changed, on the chart of all members.
    """

    title: str
    kept: bool
    reason: str
    image_presentations: int | None
    line: DifferenceLine


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """The members of the learning targets.

    Attributes:
        members: in the order they were tried.
        budget_presentations: the most images that all members may be shown; None for no limit.
        distortion: what reducing the joined targets to one size costs, (name, value).
        metric: by which they were judged, for people; None where nothing was compared.
        chart: the scale of the members' lines.
        learned_from: whether the run's model learned from them.
    """

    members: tuple[Member, ...]
    budget_presentations: int | None
    distortion: tuple[tuple[str, str], ...]
    metric: str | None
    chart: DifferenceChart
    learned_from: bool


def read_choice(results: Mapping[str, Any]) -> Choice | None:
    """`results["choice"]`; None where nothing was chosen.

    Raises:
        BadInputError: it is not what a run writes.
    """
    return read_part(results, "choice", _choice)


def read_ensemble(results: Mapping[str, Any]) -> Ensemble | None:
    """`results["ensemble"]`; None where there is none.

    Raises:
        BadInputError: it is not what a run writes.
    """
    return read_part(results, "ensemble", _ensemble)


def _choice(values: Mapping[str, Any]) -> Choice:
    candidates = values["candidates"]
    titles = {one["key"]: one["title"] for one in candidates}
    chosen = values["chosen"]
    title = titles.get(chosen, chosen)
    return Choice(
        split=values["split"],
        title=title,
        # The page has named it already.
        reason=values["reason"].removeprefix(f"{title}: "),
        candidates=tuple(
            Candidate(
                title=one["title"],
                chosen=one["key"] == chosen,
                recall_at_1=one.get("recall_at_1"),
                map_at_r=one.get("map_at_r"),
                mean_within=one.get("mean_within_recall_at_1"),
                image_presentations=one.get("image_presentations"),
                seconds=one.get("seconds"),
            )
            for one in candidates
        ),
        steps=tuple(
            Step(
                champion=titles.get(step["champion"], step["champion"]),
                challenger=titles.get(step["challenger"], step["challenger"]),
                taken=bool(step["taken"]),
                reason=step["reason"],
                chart=chart_of(Comparison.from_dict(step["comparison"])),
            )
            for step in values["steps"]
        ),
        against_specialists=words_against_specialists(values),
    )


def words_against_specialists(choice: Mapping[str, Any]) -> str | None:
    """How the chosen model does against the specialists, in a sentence; None where that was not measured."""
    if not choice.get("against_specialists"):
        return None
    found = Comparison.from_dict(choice["against_specialists"])
    worse = [name for name in found.worse_in_any() if name != MERGED]
    mean = f"{points(found.mean_within())} points of R@1 on average"
    return (
        f"Against the specialist of each vertical, searched within the vertical: {mean}, "
        f"worse in {f'{listing(worse)}, which its specialist serves better' if worse else 'none'}."
    )


def _ensemble(values: Mapping[str, Any]) -> Ensemble:
    members = values["members"]
    differences = [
        None if one.get("difference") is None else Difference.from_dict(one["difference"]) for one in members
    ]
    tolerance = float(values.get("tolerance") or 0.0)
    scale = scale_around_zero([one for one in differences if one is not None], tolerance=tolerance)
    lines = [
        DifferenceLine(
            name=one["title"],
            note=one.get("reason") or "",
            mark=None if difference is None else mark_of(difference, scale),
        )
        for one, difference in zip(members, differences, strict=True)
    ]
    return Ensemble(
        members=tuple(
            Member(
                title=one["title"],
                kept=bool(one["kept"]),
                reason=one.get("reason") or "",
                image_presentations=one.get("image_presentations") or None,
                line=line,
            )
            for one, line in zip(members, lines, strict=True)
        ),
        budget_presentations=values.get("budget_presentations"),
        distortion=tuple(
            (name.replace("_", " "), f"{value:.3g}")
            for name, value in (values.get("distortion") or {}).items()
            if isinstance(value, int | float)
        ),
        metric=next((METRIC_NAMES[one.metric] for one in differences if one is not None), None),
        chart=chart(lines, scale, tolerance=tolerance),
        learned_from=bool(values.get("learned_from", True)),
    )
