"""Comparisons, choices and growths as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from univert.core.terminal import Name, new_table
from univert.metrics.compare import MERGED, METRICS, UNSEEN_BRANDS, Comparison, Difference, Figures, Verdict
from univert.metrics.evaluate import Evaluation, Metrics
from univert.report.number_format import MISSING, change_interval, count, interval, percent, points
from univert.report.verdict import against_specialists, specialists_below_untrained

if TYPE_CHECKING:
    from univert.metrics.compatibility import GrowthFigures
    from univert.training.combine.groups import Combination
    from univert.training.evaluation import ComparedModel, RowComparison
    from univert.training.targets.choice import Choice

_STYLES: dict[Verdict, str] = {"better": "green", "same": "none", "unclear": "dim", "worse": "bold red"}


def results_table(models: Sequence[ComparedModel], comparisons: Sequence[RowComparison] = ()) -> Table:
    """One line a compared model, and one for brands never seen, if any, in per cent; the last model is the run's."""
    columns = ("model", "merged R@1", "(95%)", "R@8", "MAP@R", "within R@1")
    table = new_table("test split, %", columns, left=("model",))
    for one in models:
        name = Name(one.row.title + ("*" if one.row.routed else ""))
        within = percent(one.evaluation.mean_within["recall_at_1"])
        table.add_row(name, *_cells(one.evaluation.merged), within, style="bold" if one is models[-1] else "")
        if one.evaluation.unseen_brands is not None:
            table.add_row(f"  {UNSEEN_BRANDS}", *_cells(one.evaluation.unseen_brands), "", style="dim")
    notes = ["* told each query's true vertical. within: mean over verticals, each searched alone."]
    notes += [finding.text for finding in specialists_below_untrained(comparisons)]
    table.caption = escape("\n".join(notes))
    return table


def evaluation_table(evaluation: Evaluation, untrained: Evaluation | None = None) -> Table:
    """One line a vertical, then the merged gallery, also for brands never seen, if any, and untrained; in per cent."""
    columns = ("gallery", "R@1", "(95%)", "R@8", "MAP@R", "queries", "products")
    table = new_table("retrieval, %", columns, left=("gallery",))
    lines = [*evaluation.verticals.items(), (MERGED, evaluation.merged)]
    if untrained is not None:
        lines.append((f"{MERGED}, untrained base network", untrained.merged))
    if evaluation.unseen_brands is not None:
        lines.append((UNSEEN_BRANDS, evaluation.unseen_brands))
        if untrained is not None:
            lines.append((f"{UNSEEN_BRANDS}, untrained", untrained.unseen_brands))
    for name, metrics in lines:
        counts = (count(metrics.queries), count(metrics.products)) if metrics else ("0", "0")
        table.add_row(Name(name), *_cells(metrics), *counts, style="bold" if name == MERGED else "")
    return table


def comparison_table(comparison: Comparison, *, titles: tuple[str, str] = ("A", "B")) -> Table:
    """One line a vertical and one for the merged gallery: both models' figures, and how sure the difference is."""
    first, second = (escape(title) for title in titles)
    columns = (
        "gallery",
        "A",
        "B",
        "B-A",
        f"({100 * comparison.level:g}%)",
        "p",
        "R@1",
        "B-A MAP@R",
        "MAP@R",
        "queries",
    )
    table = new_table("paired comparison, %", columns, left=("gallery",))
    for name, figures in comparison.galleries.items():
        recall, precision = (figures[metric] for metric in METRICS)
        table.add_row(
            Name(name),
            percent(recall.first),
            percent(recall.second),
            points(recall.difference),
            change_interval(recall),
            "<0.001" if recall.p_adjusted < 0.001 else f"{recall.p_adjusted:.3f}",
            _verdict(recall),
            points(precision.difference),
            _verdict(precision),
            count(recall.queries),
            style="bold" if figures is comparison.merged else "",
        )
    table.caption = (
        f"A: {first}. B: {second}. A, B, B-A: R@1. Intervals over products; they and p are corrected for the number of "
        f"verticals. better, worse: significant, and beyond the tolerance of {percent(comparison.tolerance)} points; "
        "same: the interval lies within it."
    )
    return table


def combination_table(combination: Combination) -> Table:
    """One line a combination that was tried, and the groups below; the report has every vertical's figures."""
    columns = ("trial", "group", "added", "alone", "joint", "lowest change", "")
    table = new_table("trained together, R@1 in %", columns, left=("group", "added", "lowest change", ""))
    for trial in combination.trials:
        first, *more = trial.group
        changes = {name: figures["recall_at_1"] for name, figures in trial.differences.items()}
        added, lowest = changes.get(trial.added), min(changes, key=lambda name: changes[name].difference, default=None)
        table.add_row(
            str(trial.number),
            Name(f"{first} and {len(more)} more" if more else first),
            Name(trial.added),
            percent(added.first if added else None),
            percent(added.second if added else None),
            MISSING if lowest is None else Name(f"{lowest} {points(changes[lowest].difference)}"),
            "accepted" if trial.accepted else "refused",
            style="" if trial.accepted else "dim",
        )
    groups = [f"{number}: {', '.join(group)}" for number, group in enumerate(combination.groups, start=1)]
    table.caption = escape("\n".join(["Groups", *groups]))
    return table


def choice_table(choice: Choice) -> Table:
    """The models that the pipeline chose among, and what each step of the choice said."""
    columns = ("candidate", "merged R@1", "MAP@R", "within R@1", "images shown", "seconds")
    table = new_table("choice on the validation split, %", columns, left=("candidate",))
    titles = {one.key: one.title for one in choice.candidates}
    for one in choice.candidates:
        figures = choice.figures.get(one.key, {})
        table.add_row(
            Name(one.title),
            *(percent(figures.get(name)) for name in ("recall_at_1", "map_at_r", "mean_within_recall_at_1")),
            count(one.image_presentations),
            f"{one.seconds:,.0f}",
            style="bold" if one.key == choice.chosen.key else "",
        )
    lines = []
    for step in choice.steps:
        outcome = f"{'taken' if step.taken else 'not taken'}; {step.reason}"
        lines.append(f"{titles[step.challenger]} against {titles[step.champion]}: {outcome}")
    lines.append(f"Chosen: {choice.chosen.title}: {choice.reason.removeprefix(f'{choice.chosen.title}: ')}")
    if choice.against_specialists:
        lines.append(against_specialists(choice.against_specialists).text)
    table.caption = escape("\n".join(lines))
    return table


def growth_table(figures: GrowthFigures) -> Table:
    """One line an old vertical, then all of them together and merged, then the new one; R@1 of a split in per cent."""
    new = figures.new_vertical
    columns = ("gallery", "before", "grown", "change", "(95%)", "verdict", "anew", "queries")
    table = new_table(f"growing by {escape(new)}, {figures.split} split: R@1, %", columns, left=("gallery", "verdict"))
    kept, anew = figures.kept.verticals, figures.reindexed.verticals

    def add(name: str, found: Figures | None, again: Figures | None = None, *, style: str = "") -> None:
        if found is None:
            return
        one = found["recall_at_1"]
        table.add_row(
            Name(name),
            percent(one.first),
            percent(one.second),
            points(one.difference),
            change_interval(one),
            one.verdict,
            "" if again is None else percent(again["recall_at_1"].second),
            count(one.queries),
            style=style,
        )

    for name in figures.nearness:
        if name in kept:
            add(name, kept[name], anew[name])
        else:
            table.add_row(Name(name), "no queries", style="dim")
    add("old verticals, each within", figures.old, style="bold")
    add("old verticals merged", figures.old_merged, figures.old_merged_reindexed, style="bold")
    add(f"old queries, {new} too", figures.beside_new)
    add("all verticals merged", figures.kept.merged, figures.reindexed.merged, style="bold")
    table.add_section()
    add(f"{new}, deployed before", kept.get(figures.new_vertical))
    add(f"{new}, specialist before", figures.specialist)
    add(f"{new} queries, merged", figures.new_merged)
    table.caption = (
        "Old verticals: before, stored vectors search each other; grown, the new model's queries search the stored "
        "vectors; anew, what indexing again would give. Intervals over products; better, worse: significant, and more "
        f"than {percent(figures.kept.tolerance)} points."
    )
    return table


def reproduction_table(title: str, figures: Mapping[str, float], published: Mapping[str, float]) -> Table:
    """What was measured beside what is published, per cent."""
    table = new_table(f"{title}: test products, %", ("", *figures), left=("",))
    table.add_row("seen", *(f"{value:.2f}" for value in figures.values()), style="bold")
    if published:
        table.add_row("published", *(f"{published[k]:.2f}" if k in published else MISSING for k in figures))
    return table


def _cells(metrics: Metrics | None) -> tuple[str, str, str, str]:
    if metrics is None:
        return ("no queries", "", "", "")
    first, last = metrics.recall_at[1], metrics.recall_at[max(metrics.recall_at)]
    return (percent(first.value), interval(first), percent(last.value), percent(metrics.map_at_r.value))


def _verdict(difference: Difference) -> str:
    return f"[{_STYLES[difference.verdict]}]{difference.verdict}[/]"
