"""The comparison as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from univert.core.terminal import new_table
from univert.metrics.compare import MERGED, METRICS, Comparison, Difference
from univert.metrics.evaluate import Evaluation, Interval, Metrics
from univert.report.choice import words_against_specialists
from univert.report.tables import ROUTED


def results_table(results: Mapping[str, Any]) -> Table:
    """One line a compared model, in per cent.

    Args:
        results: the content of `evaluation.json`.
    """
    columns = ("model", "merged R@1", "(95%)", "R@8", "MAP@R", "within R@1")
    table = new_table(f"{results['split']} split, %", columns, left=("model",))
    for row in results["rows"]:
        evaluation = Evaluation.from_dict(row["evaluation"])
        merged, within = evaluation.merged, evaluation.mean_within
        style = "bold" if row["key"] == results["best_key"] else ""
        mark = "*" if row["key"] in ROUTED else ""
        table.add_row(f"{row['title']}{mark}", *_cells(merged), _percent(within.get("recall_at_1")), style=style)
    table.caption = "* told each query's true vertical. within: mean over verticals, each searched alone."
    return table


def evaluation_table(evaluation: Evaluation) -> Table:
    """One line a vertical and one for the merged gallery, in per cent."""
    columns = ("gallery", "R@1", "(95%)", "R@8", "MAP@R", "queries", "products")
    table = new_table("retrieval, %", columns, left=("gallery",))
    for name, metrics in [*evaluation.verticals.items(), ("merged", evaluation.merged)]:
        counts = (f"{metrics.queries:,}", f"{metrics.products:,}") if metrics else ("0", "0")
        table.add_row(name, *_cells(metrics), *counts, style="bold" if name == "merged" else "")
    return table


_STYLES = {"better": "green", "same": "", "worse": "bold red"}


def comparison_table(comparison: Comparison, *, titles: tuple[str, str] = ("A", "B")) -> Table:
    """One line a vertical and one for the merged gallery: both models' figures, and how sure the difference is.

    Args:
        comparison: of two models.
        titles: their names, the first one's first.
    """
    first, second = (escape(title) for title in titles)
    level = f"{100 * comparison.level:g}%"
    columns = ("gallery", "A", "B", "B-A", f"({level})", "p", "R@1", "B-A MAP@R", "MAP@R", "queries")
    table = new_table("paired comparison, %", columns, left=("gallery",))
    for name, figures in [*comparison.verticals.items(), (MERGED, comparison.merged)]:
        recall, precision = (figures[metric] for metric in METRICS)
        table.add_row(
            escape(name),
            _percent(recall.first),
            _percent(recall.second),
            _points(recall.difference),
            f"{_points(recall.low)} {_points(recall.high)}",
            _probability(recall.p_adjusted),
            _verdict(recall),
            _points(precision.difference),
            _verdict(precision),
            f"{recall.queries:,}",
            style="bold" if name == MERGED else "",
        )
    table.caption = (
        f"A: {first}. B: {second}. A, B, B-A: R@1. Intervals over products. p: corrected for the number of"
        f" verticals. better, worse: significant, and beyond the tolerance of"
        f" {100 * comparison.tolerance:.1f} points."
    )
    return table


def combination_table(combination: Mapping[str, Any]) -> Table:
    """One line a combination that was tried, and the groups below; the report has every vertical's figures.

    Args:
        combination: the content of `groups.json`.
    """
    columns = ("trial", "group", "added", "alone", "joint", "lowest change", "")
    table = new_table("trained together, R@1 in %", columns, left=("group", "added", "lowest change", ""))
    for trial in combination["trials"]:
        first, *more = trial["group"]
        added = trial["added"]
        changes = {name: values["recall_at_1"] for name, values in trial["differences"].items()}
        lowest = min(changes, key=lambda name: float(changes[name]["difference"])) if changes else None
        table.add_row(
            str(trial["number"]),
            escape(f"{first} and {len(more)} more" if more else first),
            escape(added),
            _percent(changes[added]["first"] if added in changes else None),
            _percent(changes[added]["second"] if added in changes else None),
            "-" if lowest is None else escape(f"{lowest} {_points(changes[lowest]['difference'])}"),
            "accepted" if trial["accepted"] else "refused",
            style="" if trial["accepted"] else "dim",
        )
    groups = [f"{number}: {', '.join(group)}" for number, group in enumerate(combination["groups"], start=1)]
    table.caption = escape("\n".join(["Groups", *groups]))
    return table


def choice_table(choice: Mapping[str, Any]) -> Table:
    """The models that the pipeline chose among, and what each step of the choice said.

    Args:
        choice: `results["choice"]`.
    """
    columns = ("candidate", "merged R@1", "MAP@R", "within R@1", "images shown", "seconds")
    table = new_table(f"choice on the {choice['split']} split, %", columns, left=("candidate",))
    titles = {}
    for one in choice["candidates"]:
        titles[one["key"]] = one["title"]
        table.add_row(
            escape(one["title"]),
            *(_percent(one.get(name)) for name in ("recall_at_1", "map_at_r", "mean_within_recall_at_1")),
            *("-" if one.get(name) is None else f"{one[name]:,.0f}" for name in ("image_presentations", "seconds")),
            style="bold" if one["key"] == choice["chosen"] else "",
        )
    steps = []
    for step in choice["steps"]:
        both = (titles.get(step[name], step[name]) for name in ("challenger", "champion"))
        steps.append(f"{' against '.join(both)}: {'taken' if step['taken'] else 'not taken'}; {step['reason']}")
    chosen = titles.get(choice["chosen"], choice["chosen"])
    why = choice["reason"].removeprefix(f"{chosen}: ")
    specialists = words_against_specialists(choice)
    lines = [*steps, f"Chosen: {chosen}: {why}", *([specialists] if specialists else [])]
    table.caption = escape("\n".join(lines))
    return table


def reproduction_table(title: str, figures: Mapping[str, float], published: Mapping[str, float]) -> Table:
    """What was measured beside what is published, per cent."""
    table = new_table(f"{title}: test products, %", ("", *figures), left=("",))
    table.add_row("seen", *(f"{value:.2f}" for value in figures.values()), style="bold")
    if published:
        table.add_row("published", *(f"{published[k]:.2f}" if k in published else "-" for k in figures))
    return table


def _cells(metrics: Metrics | None) -> tuple[str, str, str, str]:
    if metrics is None:
        return ("no queries", "", "", "")
    first = metrics.recall_at[1]
    last = metrics.recall_at[max(metrics.recall_at)]
    return (_percent(first.value), _interval(first), _percent(last.value), _percent(metrics.map_at_r.value))


def _points(value: float) -> str:
    """A difference in points, always signed; zero bears a plus."""
    return f"{round(100 * value, 1) + 0.0:+.1f}"


def _probability(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _verdict(difference: Difference) -> str:
    style = _STYLES[difference.verdict]
    return f"[{style}]{difference.verdict}[/]" if style else difference.verdict


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _interval(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return ""
    return f"{100 * interval.low:.1f}-{100 * interval.high:.1f}"
