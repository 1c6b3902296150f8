"""What the figures of a growth say: whether it may be published, and what its card tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from univert.metrics.compare import METRIC_NAMES
from univert.metrics.compatibility import GrowthFigures, Setback


def refusal_of(figures: GrowthFigures | None, *, limit: float) -> str | None:
    """Why a growth must not be published; None if it may.

    Args:
        figures: on the validation images; None without any query.
        limit: of a loss that may be chance; see `GrowthFigures.setbacks`.
    """
    if figures is None:
        return "no validation image is a query, so nothing shows that the old vectors still serve; label some"
    if figures.unmeasured():
        return (
            f"no validation image of {', '.join(figures.unmeasured())} is a query, so nothing shows that all is well "
            "there; label two images of a product"
        )
    return "; ".join(map(_in_words, figures.setbacks(limit))) or None


def _in_words(setback: Setback) -> str:
    kept = setback.kept
    text = (
        f"{setback.gallery} lost {-100 * kept.difference:.1f} points of {METRIC_NAMES[kept.metric]} "
        f"({100 * kept.first:.1f} to {100 * kept.second:.1f})"
    )
    if not setback.certain:
        text += f" on {kept.products} products: too much, though chance is not ruled out"
    if setback.reindexed is not None:
        text += f", and indexing anew would give {100 * setback.reindexed.second:.1f}"
    return text


def card_figures(record: Mapping[str, Any]) -> dict[str, float | int | str]:
    """What the grown model's card says of it.

    Args:
        record: figures by split, as plain values.
    """
    figures: dict[str, float | int | str] = {}
    for split, values in record.items():
        found = GrowthFigures.from_dict(values)
        named = {"old verticals, queries to the stored vectors": found.old, found.new_vertical: found.specialist}
        for name, differences in named.items():
            if differences is not None:
                difference = differences["recall_at_1"]
                before = "its specialist" if name == found.new_vertical else "the stored vectors themselves"
                figures[f"{name}, recall_at_1, {split}"] = f"{difference.second:.3f} ({before}: {difference.first:.3f})"
    return figures
