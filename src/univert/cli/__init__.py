"""The command line. Heavy modules load inside the commands, so that `--help` is instant."""

from __future__ import annotations

import contextlib
import errno
import logging
import sys
from typing import Annotated

import typer

import univert
from univert.cli import (
    building,
    calibrating,
    curating,
    detecting,
    exporting,
    indexing,
    learning,
    measuring,
    rating,
    searching,
    serving,
)
from univert.cli.options import app
from univert.core.allocator import reuse_freed_memory
from univert.core.errors import UnivertError
from univert.core.terminal import progress_lines

_COMMANDS = (
    building,
    calibrating,
    curating,
    detecting,
    exporting,
    indexing,
    learning,
    measuring,
    rating,
    searching,
    serving,
)
__all__ = ["app", "main"]

INTERRUPTED = 130  # the shell's convention for Ctrl-C


def main() -> None:
    """Entry point: errors are one line, and the exit status says what kind (1 a check failed, 2 bad input)."""
    reuse_freed_memory()
    drawn = sys.stderr.isatty()
    try:
        with contextlib.nullcontext() if drawn else progress_lines(logging.StreamHandler()):
            status = app(standalone_mode=False)
    except UnivertError as error:
        typer.echo(f"univert: {error}", err=True)
        status = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not (full or error.filename):
            raise
        fix = "; free some space and run the same command again" if full else ""
        typer.echo(f"univert: {error.filename or 'output'}: {error.strerror}{fix}", err=True)
        status = 1
    except Exception as error:
        show = getattr(error, "show", None)  # a usage error of the command line parser prints itself
        if show is None:
            raise
        show()
        status = 2
    if status == INTERRUPTED:  # the parser may have caught the interrupt itself
        typer.echo("univert: stopped; nothing is half-written: run the same command again", err=True)
    sys.exit(status)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"univert {univert.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """One embedding model for a catalogue with many product verticals."""
