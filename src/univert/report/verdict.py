"""What the figures say, in plain words: computed, so that it can never flatter them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from univert.metrics import compare
from univert.metrics.compare import Comparison, Difference
from univert.report.number_format import change_interval, count, listing, percent, points
from univert.report.tables import recall_at_1

if TYPE_CHECKING:
    from univert.training.combine.groups import Group, Trial
    from univert.training.evaluation import ComparedModel, RowComparison

Tone = Literal["good", "bad", "even", "note"]
_TONES: dict[compare.Verdict, Tone] = {"better": "good", "same": "even", "unclear": "even", "worse": "bad"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One sentence of the verdict, and whether it speaks for the model."""

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
    """Say what paired comparisons of the last model, which the report is about, with others show."""
    paired = {one.first: one.comparison for one in comparisons if one.second == models[-1].row.key}
    others = [(one, paired[one.row.key]) for one in models if one.row.key in paired]
    others.sort(key=lambda pair: pair[0].row.routed)  # the specialists last
    return [
        *(against_specialists(found) if one.row.routed else _against(one, found) for one, found in others),
        *specialists_below_untrained(comparisons),
        *_by_vertical(models[-1]),
    ]


def refused_by(group: Group, trials: Sequence[Trial]) -> list[Trial]:
    """The trials that a group refused: those that started from it or from how it began."""
    return [trial for trial in trials if not trial.accepted and trial.group == group[: len(trial.group)]]


def _against(other: ComparedModel, comparison: Comparison) -> Finding:
    found, title = comparison.merged["recall_at_1"], other.row.title
    name = f"{'the ' if other.row.key == 'base' else ''}{title[0].lower()}{title[1:]}"
    text = f"{_change(found)} points against {name} ({percent(other.evaluation.merged.recall_at[1].value)}%)."
    return Finding(tone=_TONES[found.verdict], text=text)


def against_specialists(comparison: Comparison) -> Finding:
    """How the chosen model does against the specialists."""
    found = {name: figures["recall_at_1"] for name, figures in comparison.verticals.items()}
    if len(found) == 1:
        ((name, one),) = found.items()
        return Finding(tone=_TONES[one.verdict], text=f"{_change(one)} points against the specialist of {name}.")
    better = [name for name, one in found.items() if one.verdict == "better"]
    worse = [f"{name} ({points(one.difference)})" for name, one in found.items() if one.verdict == "worse"]
    same = [name for name, one in found.items() if one.verdict == "same"]
    unclear = len(found) - len(better) - len(worse) - len(same)
    mean = comparison.mean_within()
    parts = [f"better than the specialist in {len(better) or 'none'} of {len(found)}"]
    if same:
        parts.append(f"the same in {len(same)}")
    if unclear:
        parts.append(f"not told apart from it in {unclear}")
    parts.append(f"worse in {listing(worse) if worse else 'none'}")
    text = f"Within the verticals it is {listing(parts)}; {points(mean)} points on average."
    return Finding(tone="bad" if worse else "good" if better and mean > 0 else "even", text=text)


def specialists_below_untrained(comparisons: Sequence[RowComparison]) -> list[Finding]:
    """Which specialists find less in their own vertical than the base network did before any training."""
    found = next((one.comparison for one in comparisons if (one.first, one.second) == ("base", "specialists")), None)
    if found is None:
        return []
    recall = {name: figures["recall_at_1"] for name, figures in found.verticals.items()}
    below = sorted((one.difference, name) for name, one in recall.items() if one.difference < -found.tolerance)
    if not below:
        return [Finding(tone="note", text="No specialist is below the untrained base network.")]
    sure = [name for _, name in below if recall[name].verdict == "worse"]
    names = listing([f"{name} ({points(change)})" for change, name in below], most=30)
    text = (
        f"Below the untrained base network {'is' if len(below) == 1 else 'are'} {len(below)} of {len(recall)} "
        f"specialists: {names}. Beyond chance: {listing(sure) or 'none'}."
    )
    return [Finding(tone="bad" if sure else "note", text=text)]


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
