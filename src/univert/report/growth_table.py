"""What a growth did, as a table for a terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from univert.core.terminal import new_table
from univert.metrics.compare import Difference
from univert.metrics.compatibility import GrowthFigures

_COLUMNS = ("gallery", "before", "grown", "change", "(95%)", "verdict", "anew", "queries")


def growth_table(figures: GrowthFigures) -> Table:
    """One line an old vertical, then all of them together and merged, then the new vertical; R@1 in per cent.

    Args:
        figures: of one split.
    """
    title = f"growing by {escape(figures.new_vertical)}, {figures.split} split: R@1, %"
    table = new_table(title, _COLUMNS, left=("gallery", "verdict"))
    kept, anew = figures.kept.verticals, figures.reindexed.verticals
    for name in figures.nearness:
        if name in kept:
            row = _row(kept[name]["recall_at_1"], anew[name]["recall_at_1"].second)
            table.add_row(escape(name), *row)
        else:
            table.add_row(escape(name), "no queries", style="dim")
    if figures.old is not None:
        table.add_row("old verticals, each within", *_row(figures.old["recall_at_1"], None), style="bold")
    if figures.old_merged is not None and figures.old_merged_reindexed is not None:
        row = _row(figures.old_merged["recall_at_1"], figures.old_merged_reindexed["recall_at_1"].second)
        table.add_row("old verticals merged", *row, style="bold")
    new = escape(figures.new_vertical)
    if figures.beside_new is not None:
        table.add_row(f"old queries, {new} too", *_row(figures.beside_new["recall_at_1"], None))
    merged = figures.kept.merged["recall_at_1"]
    row = _row(merged, figures.reindexed.merged["recall_at_1"].second)
    table.add_row("all verticals merged", *row, style="bold", end_section=True)
    if figures.new_vertical in kept:
        within = kept[figures.new_vertical]["recall_at_1"]
        table.add_row(f"{new}, deployed before", *_row(within, None))
    if figures.specialist is not None:
        table.add_row(f"{new}, specialist before", *_row(figures.specialist["recall_at_1"], None))
    if figures.new_merged is not None:
        table.add_row(f"{new} queries, merged", *_row(figures.new_merged["recall_at_1"], None))
    table.caption = (
        "Old verticals: before, stored vectors search each other; grown, the new model's queries search the stored "
        "vectors; anew, what indexing again would give. Intervals over products; better, worse: significant, and more "
        f"than {100 * figures.kept.tolerance:g} points."
    )
    return table


def _row(difference: Difference, anew: float | None) -> tuple[str, ...]:
    return (
        _percent(difference.first),
        _percent(difference.second),
        f"{100 * difference.difference:+.1f}",
        f"{100 * difference.low:+.1f} {100 * difference.high:+.1f}",
        difference.verdict,
        "" if anew is None else _percent(anew),
        f"{difference.queries:,}",
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
