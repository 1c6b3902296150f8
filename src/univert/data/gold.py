"""Gold questions: triplets of which it is known what raters should say."""

from __future__ import annotations

import functools
import random
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from univert.core.errors import BadInputError
from univert.data.catalogue import Catalogue
from univert.data.ratings import QUESTIONS, Ratings
from univert.data.rows import ProblemLog, SourceProblem, printable
from univert.data.tables import cell_text, read_table
from univert.data.triplets import ROLES

_KNOWN = ("yes", "no")


def add_gold(ratings: Ratings, path: Path | str, catalogue: Catalogue) -> int:
    """Add gold questions from a table with the columns anchor, positive, negative, same and different.

    The last two say `yes` or `no`: what is right. Wrong triplets are the better questions, so they are welcome here.

    Args:
        ratings: where to add them.
        path: a table as `univert.data.tables.read_table` takes it.
        catalogue: with the images.

    Returns:
        how many there are.

    Raises:
        BadInputError: the file cannot be read, a column is missing, or a row cannot be used.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInputError(f"{path}: no such file; give one with the columns {', '.join((*ROLES, *QUESTIONS))}")
    verticals = dict(zip(catalogue.column("id"), catalogue.column("vertical"), strict=True))
    found: list[tuple[tuple[str, str, str, str], tuple[str, str]]] = []
    with ProblemLog(None) as log:
        for item in read_table(path, (*ROLES, *QUESTIONS), functools.partial(_check_columns, path)):
            log.rows += 1
            if isinstance(item, SourceProblem):
                log.reject([item])
                continue
            origin, values = item
            ids = [unicodedata.normalize("NFC", cell_text(values.get(role)) or "") for role in ROLES]
            known = tuple((cell_text(values.get(question)) or "").lower() for question in QUESTIONS)
            problems = [
                SourceProblem("unknown id", origin, f"{role} {name!r}", "give the id of an image of the catalogue")
                for role, name in zip(ROLES, ids, strict=True)
                if name not in verticals
            ]
            if not set(known) <= set(_KNOWN):
                problems.append(SourceProblem("no known answer", origin, ", ".join(known), "write yes or no"))
            if problems:
                log.reject(problems)
            else:
                found.append(((ids[0], ids[1], ids[2], verticals[ids[0]]), (known[0], known[1])))
    if log.rejected:
        raise BadInputError(f"{path}: {log.rejected:,} of {log.rows:,} gold questions cannot be used\n{log.summary()}")
    random.Random(0).shuffle(found)  # noqa: S311 - raters get them in this order: not first all that are right
    for triplet, gold in found:
        ratings.add([triplet], gold=gold)
    return log.rows


def _check_columns(path: Path, names: Sequence[str]) -> None:
    for name in (*ROLES, *QUESTIONS):
        if names.count(name) != 1:
            raise BadInputError(
                f"{path}: needs the column {name!r} once; name the columns {', '.join((*ROLES, *QUESTIONS))} "
                f"(there are: {printable(', '.join(names)) or 'none'})"
            )
