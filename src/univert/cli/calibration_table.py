"""What a calibration reached, as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from univert.core.terminal import new_table
from univert.identity.held_out_queries import KNOWN_PRODUCT, NEW_PRODUCT, NEW_VALUE
from univert.identity.identify import ATTRIBUTES, Calibration


def calibration_table(calibration: Calibration) -> Table:
    """One line an attribute, from images that nothing was fitted on where the catalogue had some."""
    report = calibration.report["attributes"]
    split = "test" if any("test" in figures for figures in report.values()) else "val"
    columns = ("", "known", "right", "asked for", "error", KNOWN_PRODUCT, NEW_PRODUCT, NEW_VALUE)
    table = new_table(f"What {calibration.neighbours} neighbours tell, on the {split} split", columns, left=("",))
    table.caption = (
        "known: share of answers above the threshold; right: share of those that are right, and what was asked for; "
        "error: mean difference between confidence and share right. Last: share called known of photos whose product "
        "is in the index, whose product is not, and whose vertical (brand, style) is not."
    )
    for name in ATTRIBUTES:
        if name not in calibration.attributes:
            table.add_row(name, "never")  # too few labelled images in val
            continue
        figures = report[name].get("test", report[name]["val"])
        asked = calibration.attributes[name]
        table.add_row(
            name,
            _percent(figures["coverage"]) if asked.threshold is not None else "never",
            _percent(figures["precision"]),
            _percent(asked.precision),
            f"{figures['expected_calibration_error']:.3f}",
            *(_coverage(figures, situation) for situation in (KNOWN_PRODUCT, NEW_PRODUCT, NEW_VALUE)),
        )
    return table


def _coverage(figures: Mapping[str, Any], situation: str) -> str:
    there = figures["situations"].get(situation)
    return _percent(there["coverage"]) if there else ""


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"
