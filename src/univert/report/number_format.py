"""Numbers as people read them in a report."""

from __future__ import annotations

from collections.abc import Sequence

MINUS = "\N{MINUS SIGN}"
RANGE = "\N{WORD JOINER}\N{EN DASH}\N{WORD JOINER}"
"""Between the ends of an interval; never the end of a line."""


def percent(share: float, *, digits: int = 1) -> str:
    """A share of 1 as a percentage without its sign: 0.5123 -> `51.2`."""
    return f"{100 * share:.{digits}f}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, always signed, zero as `±0.0`: 0.012 -> `+1.2`."""
    rounded = round(100 * difference, 1)
    if rounded == 0:
        return "±0.0"
    return f"{'+' if rounded > 0 else MINUS}{abs(rounded):.1f}"


def count(number: int, noun: str = "") -> str:
    """A number with thousands separated and its noun in the right number: `1,204 images`."""
    text = f"{number:,}"
    if not noun:
        return text
    return f"{text} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """The plural of a regular noun: `query` -> `queries`."""
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


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
