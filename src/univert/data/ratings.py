"""What people say of triplets, in one SQLite file: who is given which, and every answer as soon as it is given."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from univert.core.errors import BadInputError, UnivertError, did_you_mean

QUESTIONS: Final = ("same", "different")
"""Whether anchor and positive show the same product; whether the negative really shows another one."""
VERDICTS: Final = ("yes", "no", "unsure")
LEASE_S: Final = 600.0
"""How long a triplet is kept for the rater that it was given to."""

_APPLICATION: Final = 0x756E7601  # what we know such a file by; the last byte is the version of its format
_BUSY_S: Final = 30.0
_SCHEMA: Final = """
CREATE TABLE triplets (
    id INTEGER PRIMARY KEY,
    anchor TEXT NOT NULL, positive TEXT NOT NULL, negative TEXT NOT NULL, vertical TEXT NOT NULL,
    gold_same TEXT, gold_different TEXT,
    answered INTEGER NOT NULL DEFAULT 0,
    UNIQUE (anchor, positive, negative)
);
CREATE INDEX ordinary ON triplets (answered DESC, id) WHERE gold_same IS NULL;
CREATE INDEX gold ON triplets (id) WHERE gold_same IS NOT NULL;
CREATE TABLE leases (
    triplet INTEGER NOT NULL REFERENCES triplets, rater TEXT NOT NULL, until_s REAL NOT NULL,
    PRIMARY KEY (triplet, rater)
) WITHOUT ROWID;
CREATE INDEX leases_of_rater ON leases (rater);
CREATE TABLE answers (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    triplet INTEGER NOT NULL REFERENCES triplets, rater TEXT NOT NULL,
    same TEXT NOT NULL, different TEXT NOT NULL, seconds REAL, time_s REAL NOT NULL,
    UNIQUE (triplet, rater)
);
CREATE INDEX answers_of_rater ON answers (rater);
CREATE TRIGGER answer_came AFTER INSERT ON answers
    BEGIN UPDATE triplets SET answered = answered + 1 WHERE id = new.triplet; END;
CREATE TRIGGER answer_went AFTER DELETE ON answers
    BEGIN UPDATE triplets SET answered = answered - 1 WHERE id = old.triplet; END;
CREATE TABLE choices (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
"""
_TRIPLET: Final = "SELECT gold_same, gold_different, id, anchor, positive, negative, vertical FROM triplets"
_ADD: Final = """
INSERT INTO triplets (anchor, positive, negative, vertical, gold_same, gold_different) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT"""
_BECOME_GOLD: Final = "DO UPDATE SET gold_same = excluded.gold_same, gold_different = excluded.gold_different"
_OF_OTHERS: Final = "(SELECT count(*) FROM leases WHERE triplet = t.id AND rater != :rater AND until_s > :now)"
_NOT_MINE: Final = """
NOT EXISTS (SELECT 1 FROM answers WHERE triplet = t.id AND rater = :rater)
AND NOT EXISTS (SELECT 1 FROM leases WHERE triplet = t.id AND rater = :rater AND until_s > :now)"""
_NEXT: Final = f"""
SELECT id FROM triplets AS t WHERE gold_same IS NULL AND answered < :raters
AND {_NOT_MINE} AND answered + :weight * {_OF_OTHERS} < :raters ORDER BY answered DESC, id LIMIT 1"""  # noqa: S608
_NEXT_GOLD: Final = f"SELECT id FROM triplets AS t WHERE gold_same IS NOT NULL AND {_NOT_MINE} ORDER BY id LIMIT 1"  # noqa: S608


@dataclass(frozen=True, kw_only=True, slots=True)
class RatedTriplet:
    """A triplet to rate: ids of images, and their vertical; `gold` is what is known, in the order of `QUESTIONS`."""

    id: int
    anchor: str
    positive: str
    negative: str
    vertical: str
    gold: tuple[str, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a rater said of a triplet: a word of `VERDICTS` for each question, after how many seconds, and when.

    `seconds` is None where it is not known; `time_s` counts from 1970.
    """

    triplet: int
    rater: str
    same: str
    different: str
    seconds: float | None
    time_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far the work is: answers of one rater, triplets with enough answers, and all triplets; gold left out."""

    mine: int
    rated: int
    triplets: int


class Ratings:
    """A file of ratings, open. Several processes and threads may have it open at once; each call is one transaction.

    A triplet goes to `raters` people. It is leased to one for `LEASE_S`: meanwhile others are given it only if they
    have nothing else to do and answers are still missing. Begun triplets come before new ones. An answer that comes
    after its lease has run out counts all the same.

    Args:
        path: the file.
        create: make it if it is not there.
        clock: seconds since 1970.
        chance: a random number from 0 to 1, which decides whether a gold question is due.

    Raises:
        BadInputError: there is no such file, or it is something else.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        create: bool = False,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.path = Path(path)
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        if not create and not self.path.is_file():
            raise BadInputError(f"{self.path}: no such file of ratings; begin one with: univert rate")
        try:
            self._db = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise BadInputError(f"{self.path}: {error}") from None
        try:
            self._check_format()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @property
    def raters(self) -> int:
        """How many people each triplet goes to."""
        return int(self._choice("raters", 1.0))

    def choose(self, *, raters: int, gold_share: float) -> None:
        """Say how many people each triplet goes to, and what share of the questions is gold, from now on.

        Raises:
            BadInputError: not at least one rater, or no share from 0 to 0.5.
        """
        if raters < 1:
            raise BadInputError(f"raters must be at least 1, got {raters}")
        if not 0 <= gold_share <= 0.5:
            raise BadInputError(f"gold_share must be from 0 to 0.5, got {gold_share}")
        with self._transaction() as run:
            for name, value in (("raters", raters), ("gold_share", gold_share)):
                run("INSERT INTO choices VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (name, value))

    def add(self, triplets: Iterable[tuple[str, str, str, str]], *, gold: tuple[str, str] | None = None) -> None:
        """Add triplets to rate: anchor, positive, negative, vertical; those that are there already stay as they are.

        Args:
            triplets: in the order in which raters get them.
            gold: what is known of all of these, in the order of `QUESTIONS`; they become gold questions.
        """
        rows = [(*triplet, *(gold or (None, None))) for triplet in triplets]
        with self._transaction():
            self._db.executemany(f"{_ADD} DO NOTHING" if gold is None else f"{_ADD} {_BECOME_GOLD}", rows)

    def lease(self, rater: str, most: int) -> list[RatedTriplet]:
        """Up to `most` triplets for a rater: those that are leased to them already, renewed, and new ones."""
        with self._transaction() as run:
            mine = "rater = ? AND until_s > ?"
            held = [
                triplet
                for (triplet,) in run(
                    f"SELECT triplet FROM leases WHERE {mine} ORDER BY until_s, triplet",  # noqa: S608
                    (rater, self._clock()),
                )
            ]
            for triplet in held:
                self._keep(triplet, rater)
            while len(held) < most and (triplet := self._next(rater)) is not None:
                self._keep(triplet, rater)
                held.append(triplet)
            return [self._triplet(one) for one in held]

    def answer(self, rater: str, triplet: int, verdicts: tuple[str, str], seconds: float | None = None) -> None:
        """Note what a rater says of a triplet that was given to them, in place of what they said before.

        Raises:
            BadInputError: an unknown verdict, or they were never given this triplet.
        """
        for verdict in verdicts:
            if verdict not in VERDICTS:
                raise BadInputError(f"unknown answer {verdict!r}; {did_you_mean(verdict, VERDICTS)}")
        with self._transaction() as run:
            given = run("DELETE FROM leases WHERE triplet = ? AND rater = ?", (triplet, rater)).rowcount
            given += run("DELETE FROM answers WHERE triplet = ? AND rater = ?", (triplet, rater)).rowcount
            if not given:
                raise BadInputError(f"triplet {triplet} was not given to {rater!r}; ask for the next ones")
            self._insert(Answer(
                triplet=triplet, rater=rater, same=verdicts[0], different=verdicts[1], seconds=seconds,
                time_s=self._clock(),
            ))  # fmt: skip

    def put(self, answers: Iterable[Answer]) -> None:
        """Note answers that were given elsewhere; they take the place of those that the same people gave before."""
        with self._transaction() as run:
            for answer in answers:
                run("DELETE FROM answers WHERE triplet = ? AND rater = ?", (answer.triplet, answer.rater))
                self._insert(answer)

    def undo(self, rater: str) -> RatedTriplet | None:
        """Take back a rater's last answer and lease its triplet to them again; None if there is none."""
        with self._transaction() as run:
            last = run("SELECT triplet FROM answers WHERE rater = ? ORDER BY number DESC LIMIT 1", (rater,)).fetchone()
            if last is None:
                return None
            run("DELETE FROM answers WHERE triplet = ? AND rater = ?", (last[0], rater))
            self._keep(last[0], rater)
            return self._triplet(last[0])

    def progress(self, rater: str = "") -> Progress:
        """How far the work is, and a rater's part in it."""
        with self._lock, self._said():
            (mine,) = self._db.execute("SELECT count(*) FROM answers WHERE rater = ?", (rater,)).fetchone()
            rated, triplets = self._db.execute(
                "SELECT count(*) FILTER (WHERE answered >= ?), count(*) FROM triplets WHERE gold_same IS NULL",
                (self.raters,),
            ).fetchone()
            return Progress(mine=mine, rated=rated, triplets=triplets)

    def triplets(self) -> list[RatedTriplet]:
        """All triplets, gold among them, in the order in which raters get them."""
        with self._lock, self._said():
            return [_triplet(row) for row in self._db.execute(f"{_TRIPLET} ORDER BY id")]

    def answers(self) -> list[Answer]:
        """All answers that stand, gold among them, in the order in which they were given."""
        names = Answer.__dataclass_fields__
        with self._lock, self._said():
            rows = self._db.execute(f"SELECT {', '.join(names)} FROM answers ORDER BY number").fetchall()  # noqa: S608
        return [Answer(**dict(zip(names, row, strict=True))) for row in rows]

    def _next(self, rater: str) -> int | None:
        given = {"rater": rater, "now": self._clock(), "raters": self.raters}
        for weight in (given["raters"], 1):  # first what nobody has before them just now
            if (found := self._db.execute(_NEXT, {**given, "weight": weight}).fetchone()) is not None:
                break
        else:
            return None
        if self._chance() < self._choice("gold_share", 0.0):
            found = self._db.execute(_NEXT_GOLD, given).fetchone() or found
        return int(found[0])

    def _keep(self, triplet: int, rater: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", (triplet, rater, self._clock() + LEASE_S))

    def _insert(self, answer: Answer) -> None:
        names = Answer.__dataclass_fields__
        places = ", ".join("?" * len(names))
        self._db.execute(
            f"INSERT INTO answers ({', '.join(names)}) VALUES ({places})",  # noqa: S608
            [getattr(answer, name) for name in names],
        )

    def _triplet(self, triplet: int) -> RatedTriplet:
        return _triplet(self._db.execute(f"{_TRIPLET} WHERE id = ?", (triplet,)).fetchone())

    def _choice(self, name: str, default: float) -> float:
        found = self._db.execute("SELECT value FROM choices WHERE name = ?", (name,)).fetchone()
        return default if found is None else float(found[0])

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """All of a block or nothing of it, on the disk when it ends."""
        with self._lock, self._said():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db.execute
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _said(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise UnivertError(f"{self.path} cannot be read or written just now: {error}") from None

    def _check_format(self) -> None:
        try:
            self._db.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not wait for one another
            self._db.execute("PRAGMA synchronous = FULL")  # an answer that was noted outlives a power cut, too
            if not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                self._db.executescript(f"BEGIN IMMEDIATE; PRAGMA application_id = {_APPLICATION}; {_SCHEMA} COMMIT;")
            (found,) = self._db.execute("PRAGMA application_id").fetchone()
        except sqlite3.Error as error:
            raise BadInputError(f"{self.path} cannot be used as a file of ratings: {error}; name another") from None
        if found != _APPLICATION:
            raise BadInputError(f"{self.path} is a file of another program, or of another version; name another")


def _triplet(row: tuple[Any, ...]) -> RatedTriplet:
    same, different, number, anchor, positive, negative, vertical = row
    gold = None if same is None else (same, different)
    return RatedTriplet(id=number, anchor=anchor, positive=positive, negative=negative, vertical=vertical, gold=gold)
