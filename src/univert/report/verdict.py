"""What the figures say, in plain words: computed, so that it can never flatter them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from univert.metrics import compare
from univert.metrics.compare import MERGED, Comparison, Difference
from univert.report.number_format import change_interval, count, listing, percent, points
from univert.report.tables import recall_at_1

if TYPE_CHECKING:
    from univert.training.combine.groups import Group, Trial
    from univert.training.evaluation import ComparedModel, RowComparison

Tone = Literal["good", "bad", "even", "note"]
_TONES: dict[compare.Verdict, Tone] = {"better": "good", "same": "even", "worse": "bad"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One sentence of the verdict.

    Attributes:
        tone: whether it speaks for the model.
        text: the sentence.
    """

    tone: Tone
    text: str


def headline(best: ComparedModel) -> str:
    """The report in one line."""
    merged = best.evaluation.merged.recall_at[1]
    found = f"the right product comes first for {percent(merged.value)}% of queries"
    verticals = list(best.evaluation.verticals)
    if len(verticals) == 1:
        return f"In {verticals[0]}, {found}"
    return f"One model for {count(len(verticals), 'vertical')}: {found}"


def findings(models: Sequence[ComparedModel], comparisons: Sequence[RowComparison]) -> list[Finding]:
    """Say what a comparison shows.

    Args:
        models: the comparison; the last is the one that the report is about.
        comparisons: paired comparisons of that one with others.
    """
    best = models[-1]
    paired = {one.first: one.comparison for one in comparisons}
    others = [(one, paired[one.row.key]) for one in models if one.row.key in paired]
    joint = [(one, comparison) for one, comparison in others if one.row.key.startswith("joint")]
    return [
        *(_against_untrained(one, comparison) for one, comparison in others if one.row.key == "base"),
        *([_against_joint(joint)] if joint else []),
        *(_against_specialists(comparison) for one, comparison in others if one.row.routed),
        *_by_vertical(best),
    ]


def words_against_specialists(found: Comparison) -> str:
    """How the chosen model does against the specialists, in a sentence."""
    worse = [name for name in found.worse_in_any() if name != MERGED]
    mean = f"{points(found.mean_within())} points of R@1 on average"
    return (
        f"Against the specialist of each vertical, searched within the vertical: {mean}, "
        f"worse in {f'{listing(worse)}, which its specialist serves better' if worse else 'none'}."
    )


def refused_by(group: Group, trials: Sequence[Trial]) -> list[Trial]:
    """The trials that a group refused: those that started from it or from how it began."""
    return [trial for trial in trials if not trial.accepted and trial.group == group[: len(trial.group)]]


def _against_untrained(base: ComparedModel, comparison: Comparison) -> Finding:
    found = comparison.merged["recall_at_1"]
    untrained = percent(base.evaluation.merged.recall_at[1].value)
    text = f"{_change(found)} points against the untrained base network ({untrained}%)."
    return Finding(tone=_TONES[found.verdict], text=text)


def _against_joint(joint: Sequence[tuple[ComparedModel, Comparison]]) -> Finding:
    found = [(one, comparison.merged["recall_at_1"]) for one, comparison in joint]
    parts = [
        f"{_change(difference)} against {one.row.title} ({percent(one.evaluation.merged.recall_at[1].value)}%)"
        for one, difference in found
    ]
    said = {difference.verdict for _, difference in found}
    tone: Tone = "bad" if "worse" in said else "even" if "same" in said else "good"
    hint = ""
    if "same" in said:
        level = [one.row.title for one, difference in found if difference.verdict == "same"]
        hint = f" Level with {listing(level)}." if len(found) > 1 else " That is level."
    return Finding(tone=tone, text=f"Against training one model on everything, points: {listing(parts)}.{hint}")


def _against_specialists(comparison: Comparison) -> Finding:
    found = {name: figures["recall_at_1"] for name, figures in comparison.verticals.items()}
    if len(found) == 1:
        ((name, one),) = found.items()
        return Finding(tone=_TONES[one.verdict], text=f"{_change(one)} points against the specialist of {name}.")
    better = [name for name, one in found.items() if one.verdict == "better"]
    worse = [f"{name} ({points(one.difference)})" for name, one in found.items() if one.verdict == "worse"]
    level = len(found) - len(better) - len(worse)
    mean = comparison.mean_within()
    parts = [f"better than the specialist in {len(better)} of {len(found)}"]
    if level:
        parts.append(f"level in {level}")
    parts.append(f"worse in {listing(worse) if worse else 'none'}")
    text = f"Within the verticals it is {listing(parts)}; {points(mean)} points on average."
    return Finding(tone="bad" if worse else "good" if mean > 0 else "even", text=text)


def _change(difference: Difference) -> str:
    return f"{points(difference.difference)} ({change_interval(difference)})"


def _by_vertical(best: ComparedModel) -> Iterator[Finding]:
    found = {name: recall_at_1(metrics) for name, metrics in best.evaluation.verticals.items()}
    values = {name: interval.value for name, interval in found.items() if interval is not None}
    if len(values) > 1:
        easy, hard = max(values, key=lambda name: values[name]), min(values, key=lambda name: values[name])
        text = f"Easiest vertical: {easy} ({percent(values[easy])}%); hardest: {hard} ({percent(values[hard])}%)."
        yield Finding(tone="note", text=text)
    silent = [name for name, interval in found.items() if interval is None]
    if silent:
        text = f"No queries in {listing(silent)}: no product there has two labelled images in this split."
        yield Finding(tone="note", text=text)
