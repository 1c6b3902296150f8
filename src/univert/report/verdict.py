"""What the figures say, in plain words: computed, so that it can never flatter them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from univert.metrics import compare
from univert.metrics.compare import Comparison, Difference
from univert.metrics.figures import Interval
from univert.report.differences import Paired, interval_words
from univert.report.number_format import count, listing, percent, points
from univert.report.tables import Row, lie_apart, recall_at_1

Tone = Literal["good", "bad", "even", "note"]

_ONE_POINT = 0.01
"""Within the verticals a difference up to this much counts as level."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One sentence of the verdict.

    Attributes:
        tone: whether it speaks for the model.
        text: the sentence.
    """

    tone: Tone
    text: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The headline of a report and the sentences below it."""

    headline: str
    findings: tuple[Finding, ...]


_TONES: dict[compare.Verdict, Tone] = {"better": "good", "same": "even", "worse": "bad"}


def verdict(rows: Sequence[Row], best: Row | None, comparisons: Sequence[Paired] = ()) -> Verdict:
    """Say what a comparison shows.

    A paired comparison with a row, where there is one, decides what is said of it; without one, it is whether the
    two rows' own intervals lie apart.

    Args:
        rows: the comparison, in any order; rows may be missing.
        best: the row that the report is about; None when nothing was evaluated.
        comparisons: paired comparisons; those whose second row is `best` count.
    """
    by_key = {row.key: row for row in rows}
    if best is None:
        return Verdict(headline="Nothing was evaluated", findings=())
    merged = recall_at_1(best.merged)
    if merged is None:
        text = "No product in the evaluated split has two images, so there is nothing to look up."
        return Verdict(headline="TrainedModel, but there are no queries", findings=(Finding(tone="bad", text=text),))
    paired = {one.first: one.comparison for one in comparisons if one.second == best.key}
    joint = [by_key[key] for key in by_key if key.startswith("joint")]
    findings = [
        *_against_untrained(merged, by_key.get("base"), best, paired),
        *_against_joint(merged, joint, best, paired),
        *_against_specialists(best, by_key.get("specialists"), paired),
        *_by_vertical(best),
    ]
    return Verdict(headline=_headline(merged, best), findings=tuple(findings))


def _headline(merged: Interval, best: Row) -> str:
    verticals = list(best.verticals)
    found = f"the right product comes first for {percent(merged.value)}% of queries"
    if len(verticals) == 1:
        return f"In {verticals[0]}, {found}"
    return f"One model for {count(len(verticals), 'vertical')}: {found}"


def _against_untrained(
    merged: Interval, base: Row | None, best: Row, paired: Mapping[str, Comparison]
) -> list[Finding]:
    untrained = recall_at_1(base.merged) if base else None
    if untrained is None or base is None or base is best:
        return []
    if base.key in paired:
        found = paired[base.key].merged["recall_at_1"]
        text = f"{_paired(found)} points against the untrained base network ({percent(untrained.value)}%)."
        return [Finding(tone=_TONES[found.verdict], text=text)]
    gain = merged.value - untrained.value
    apart = lie_apart(merged, untrained)
    certainty = {
        True: "; the 95% intervals lie apart",
        False: "; the 95% intervals overlap, so read it as a tendency",
        None: "",
    }[apart]
    tone: Tone = "even" if apart is False else "good" if gain > 0 else "bad"
    return [
        Finding(
            tone=tone,
            text=f"{points(gain)} points against the untrained base network ({percent(untrained.value)}%){certainty}.",
        )
    ]


def _against_joint(
    merged: Interval, joint: Sequence[Row], best: Row, paired: Mapping[str, Comparison]
) -> list[Finding]:
    compared = [(row, recall_at_1(row.merged)) for row in joint if row is not best]
    known = [(row, other) for row, other in compared if other is not None]
    if not known:
        return []
    if all(row.key in paired for row, _ in known):
        return [_paired_against_joint([(row, other, paired[row.key]) for row, other in known])]
    parts = [
        f"{points(merged.value - other.value)} against {row.title} ({percent(other.value)}%)" for row, other in known
    ]
    behind = [row for row, other in known if other.value > merged.value]
    clear = [row for row, other in known if other.value < merged.value and lie_apart(merged, other)]
    tone: Tone = "bad" if behind else "good" if len(clear) == len(known) else "even"
    overlapping = any(lie_apart(merged, other) is False for _, other in known)
    hint = " Overlapping intervals: treat these as close." if overlapping else ""
    text = f"Against training one model on everything: {listing(parts)} points.{hint}"
    return [Finding(tone=tone, text=text)]


def _paired_against_joint(known: Sequence[tuple[Row, Interval, Comparison]]) -> Finding:
    found = [comparison.merged["recall_at_1"] for _, _, comparison in known]
    parts = [
        f"{_paired(one)} against {row.title} ({percent(other.value)}%)"
        for one, (row, other, _) in zip(found, known, strict=True)
    ]
    said = {one.verdict for one in found}
    tone: Tone = "bad" if "worse" in said else "even" if "same" in said else "good"
    hint = ""
    if "same" in said:
        close = [row.title for one, (row, _, _) in zip(found, known, strict=True) if one.verdict == "same"]
        hint = f" Level with {listing(close)}." if len(known) > 1 else " That is level."
    return Finding(tone=tone, text=f"Against training one model on everything, points: {listing(parts)}.{hint}")


def _paired_against_specialists(comparison: Comparison) -> list[Finding]:
    found = {name: figures["recall_at_1"] for name, figures in comparison.verticals.items()}
    if not found:
        return []
    if len(found) == 1:
        ((name, one),) = found.items()
        text = f"{_paired(one)} points against the specialist of {name}."
        return [Finding(tone=_TONES[one.verdict], text=text)]
    better = [name for name, one in found.items() if one.verdict == "better"]
    worse = [f"{name} ({points(found[name].difference)})" for name, one in found.items() if one.verdict == "worse"]
    level = len(found) - len(better) - len(worse)
    mean = comparison.mean_within()
    parts = [f"better than the specialist in {len(better)} of {len(found)}"]
    if level:
        parts.append(f"level in {level}")
    parts.append(f"worse in {listing(worse) if worse else 'none'}")
    text = f"Within the verticals it is {listing(parts)}; {points(mean)} points on average."
    return [Finding(tone="bad" if worse else "good" if mean > 0 else "even", text=text)]


def _paired(difference: Difference) -> str:
    return f"{points(difference.difference)} ({interval_words(difference)})"


def _against_specialists(best: Row, specialists: Row | None, paired: Mapping[str, Comparison]) -> list[Finding]:
    if specialists is None or specialists is best:
        return []
    if specialists.key in paired:
        return _paired_against_specialists(paired[specialists.key])
    pairs: dict[str, tuple[Interval, Interval]] = {}
    for vertical, metrics in best.verticals.items():
        mine, theirs = recall_at_1(metrics), recall_at_1(specialists.verticals.get(vertical))
        if mine is not None and theirs is not None:
            pairs[vertical] = (mine, theirs)
    if not pairs:
        return []
    gap = {vertical: mine.value - theirs.value for vertical, (mine, theirs) in pairs.items()}
    kept = [vertical for vertical in gap if gap[vertical] >= -_ONE_POINT]
    worst = min(gap, key=lambda vertical: gap[vertical])
    if len(pairs) == 1:
        text = f"{points(gap[worst])} points against the specialist of {worst}."
    else:
        text = (
            f"Within the verticals it matches or beats the specialist in {len(kept)} of {len(pairs)}"
            f" (no more than 1 point below)"
        )
        if len(kept) < len(pairs):
            overlap = lie_apart(*pairs[worst])
            certainty = "" if overlap is None else ", intervals apart" if overlap else ", intervals overlap"
            text += f"; furthest behind in {worst} ({points(gap[worst])}{certainty})"
        text += "."
    beyond_chance = any(gap[name] < -_ONE_POINT and lie_apart(*pairs[name]) for name in pairs)
    tone: Tone = "good" if len(kept) == len(pairs) else "bad" if beyond_chance else "even"
    return [Finding(tone=tone, text=text)]


def _by_vertical(best: Row) -> list[Finding]:
    findings = []
    known = {name: recall_at_1(metrics) for name, metrics in best.verticals.items()}
    values = {name: interval.value for name, interval in known.items() if interval is not None}
    if len(values) > 1:
        easy, hard = max(values, key=lambda name: values[name]), min(values, key=lambda name: values[name])
        text = f"Easiest vertical: {easy} ({percent(values[easy])}%); hardest: {hard} ({percent(values[hard])}%)."
        findings.append(Finding(tone="note", text=text))
    silent = sorted(name for name, interval in known.items() if interval is None)
    if silent:
        text = f"No queries in {listing(silent)}: no product there has two labelled images in this split."
        findings.append(Finding(tone="note", text=text))
    return findings
