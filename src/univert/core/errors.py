"""Errors a user can meet. Each message is one line: what is wrong, where, and the fix."""


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
