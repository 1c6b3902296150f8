"""Errors a user can meet. Each message is one line: what is wrong, where, and the fix."""

from collections.abc import Iterable


class UnivertError(Exception):
    """Base of every error that Univert raises on purpose; the command line prints its message alone.

    Attributes:
        exit_code: what `univert` exits with: 1 where a check failed, 2 where the input was bad.
    """

    exit_code = 1


class BadInputError(UnivertError, ValueError):
    """What the user gave cannot be used: a file, a value, an option."""

    exit_code = 2


class TrainingError(UnivertError, RuntimeError):
    """Training could not go on. What was done so far is on disk and can be resumed."""


def nearest_name(word: str, known: Iterable[str], *, cutoff: float = 0.5) -> str | None:
    """The known name that a word was probably meant to be; None where none is at least `cutoff` (0 to 1) alike."""
    import difflib

    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.strip().lower()[:100], list(names), n=1, cutoff=cutoff)
    return names[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or all of them where there are few.

    Example:
        >>> did_you_mean("tripplet", ["triplet", "proxy-nca"])
        "did you mean 'triplet'?"
        >>> did_you_mean("?", ["triplet", "proxy-nca"])
        'there are triplet, proxy-nca'
    """
    names = list(known)
    near = nearest_name(word, names)
    return f"did you mean {near!r}?" if near else f"there are {', '.join(names[:12])}{', ...' if names[12:] else ''}"
