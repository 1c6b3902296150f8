"""The comparison as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from univert.core.tables import new_table
from univert.evaluation.evaluate import Evaluation, Interval, Metrics


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
        mark = "*" if row["key"] == "specialists" else ""
        table.add_row(
            f"{row['title']}{mark}", *_cells(merged), _percent(within.get("recall_at_1")), style=style
        )
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


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _interval(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return ""
    return f"{100 * interval.low:.1f}-{100 * interval.high:.1f}"
