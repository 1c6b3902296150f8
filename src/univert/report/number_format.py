"""Numbers as people read them, on the page and in a terminal. A figure that is missing is a dash."""

from __future__ import annotations

from collections.abc import Sequence

from univert.metrics.compare import Difference
from univert.metrics.evaluate import Interval

MINUS = "\N{MINUS SIGN}"
MISSING = "\N{EN DASH}"


def percent(share: float | None) -> str:
    """A share of 1 as a percentage without its sign: 0.5123 -> `51.2`."""
    return MISSING if share is None else f"{100 * share:.1f}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, always signed, zero as `±0.0`: 0.012 -> `+1.2`."""
    rounded = round(100 * difference, 1)
    if rounded == 0:
        return "±0.0"
    return f"{'+' if rounded > 0 else MINUS}{abs(rounded):.1f}"


def interval(figure: Interval) -> str:
    """The ends of a figure's interval as percentages with a dash between; empty if it has none."""
    return "" if figure.low is None else f"{percent(figure.low)}\N{EN DASH}{percent(figure.high)}"


def change_interval(difference: Difference) -> str:
    """The interval of a difference in points: `+0.4 to +3.0`."""
    return f"{points(difference.low)} to {points(difference.high)}"


def count(number: int | None, noun: str = "") -> str:
    """A number with thousands separated and its noun in the right number: `1,204 images`."""
    if number is None:
        return MISSING
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}" if noun else f"{number:,}"


def duration(seconds: float) -> str:
    """A time in the two units that matter: 192 -> `3 min 12 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def listing(names: Sequence[str], *, most: int = 6) -> str:
    """Names in a sentence: `a, b and c`, cut short as `a, b and 7 more`."""
    shown = list(names)
    if len(shown) > most:
        shown = [*shown[: most - 1], f"{len(shown) - most + 1} more"]
    if len(shown) < 2:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
