"""The store against a naive model, under many hands, and under kills."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from univert.core.errors import BadInputError
from univert.data.catalogue import Catalogue
from univert.data.gold import add_gold
from univert.data.ratings import LEASE_S, VERDICTS, Answer, RatedTriplet, Ratings

RATERS = ("ann", "bob", "cyd")


def triplets(count: int, letter: str = "t") -> list[tuple[str, str, str, str]]:
    return [(f"{letter}{n}a", f"{letter}{n}p", f"{letter}{n}n", "uv"[n % 2]) for n in range(count)]


class Model:
    """What the store should do, said in the plainest way."""

    def __init__(self, rows: list[RatedTriplet], each: int, gold_share: float, chance: random.Random) -> None:
        self.rows, self.each, self.gold_share, self.chance = rows, each, gold_share, chance
        self.leases: dict[tuple[int, str], float] = {}
        self.answers: dict[tuple[int, str], tuple[str, str]] = {}

    def answered(self, triplet: int) -> int:
        return sum(of == triplet for of, _ in self.answers)

    def live(self, triplet: int, now: float) -> set[str]:
        return {rater for (of, rater), until in self.leases.items() if of == triplet and until > now}

    def lease(self, rater: str, most: int, now: float) -> list[int]:
        held = sorted((until, of) for (of, who), until in self.leases.items() if who == rater and until > now)
        found = [of for _, of in held]
        while len(found) < most:
            open_to = [
                row for row in self.rows if (row.id, rater) not in self.answers and row.id not in found
            ]  # fmt: skip
            ordinary = [
                (len(self.live(row.id, now) - {rater}) > 0, -self.answered(row.id), row.id)
                for row in open_to
                if row.gold is None and self.answered(row.id) + len(self.live(row.id, now) - {rater}) < self.each
            ]
            if not ordinary:
                break
            gold = [row.id for row in open_to if row.gold is not None]
            due = self.chance.random() < self.gold_share
            found.append(gold[0] if due and gold else min(ordinary)[2])
        for of in found:
            self.leases[of, rater] = now + LEASE_S
        return found


@pytest.mark.parametrize("seed", range(4))
def test_any_walk_agrees_with_a_naive_model(seed: int, tmp_path: Path) -> None:
    rng, now, path = random.Random(seed), [1000.0], tmp_path / "ratings"
    chance, each, share = random.Random(seed + 100), rng.randint(1, 3), rng.choice([0.0, 0.3])
    ratings = Ratings(path, create=True, clock=lambda: now[0], chance=chance.random)
    ratings.choose(raters=each, gold_share=share)
    ratings.add(triplets(4, "g"), gold=("yes", "no"))
    ratings.add(triplets(9))
    model = Model(ratings.triplets(), each, share, random.Random(seed + 100))
    for _ in range(120):
        rater, now[0] = rng.choice(RATERS), now[0] + rng.choice([1.0, 1.0, 1.0, LEASE_S / 3])
        match rng.choice(["lease", "answer", "answer", "answer", "undo", "open again"]):
            case "lease":
                most = rng.randint(1, 4)
                assert [one.id for one in ratings.lease(rater, most)] == model.lease(rater, most, now[0])
            case "answer":
                triplet, said = rng.choice(model.rows).id, (rng.choice(VERDICTS), rng.choice(VERDICTS))
                if (triplet, rater) in model.leases or (triplet, rater) in model.answers:
                    model.leases.pop((triplet, rater), None)
                    model.answers.pop((triplet, rater), None)
                    model.answers[triplet, rater] = said
                    ratings.answer(rater, triplet, said, 1.5)
                else:
                    with pytest.raises(BadInputError, match="was not given to"):
                        ratings.answer(rater, triplet, said)
            case "undo":
                last = next((of for of, who in reversed(model.answers) if who == rater), None)
                undone = ratings.undo(rater)
                assert (undone.id if undone else None) == last
                if last is not None:
                    del model.answers[last, rater]
                    model.leases[last, rater] = now[0] + LEASE_S
            case _:
                ratings.close()
                ratings = Ratings(path, clock=lambda: now[0], chance=chance.random)
        kept = {(one.triplet, one.rater): (one.same, one.different) for one in ratings.answers()}
        assert list(kept.items()) == list(model.answers.items())
    ordinary = [row.id for row in model.rows if row.gold is None]
    progress = ratings.progress("ann")
    assert progress.rated == sum(model.answered(of) >= each for of in ordinary)
    assert (progress.triplets, progress.mine) == (9, sum(who == "ann" for _, who in model.answers))
    ratings.close()


WORKER = """
import sys
from univert.data.ratings import Ratings
path, rater = sys.argv[1:]
ratings = Ratings(path)
while work := ratings.lease(rater, 2):
    ratings.answer(rater, work[0].id, ("yes", "no"))
    print(work[0].id, flush=True)
"""


def test_processes_share_the_work_and_a_kill_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ratings"

    def start(rater: str) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, "-c", WORKER, path, rater], stdout=subprocess.PIPE, text=True)

    with Ratings(path, create=True) as ratings:
        ratings.choose(raters=2, gold_share=0)
        ratings.add(triplets(60))
        ann, bob = start("ann"), start("bob")
        assert ann.stdout is not None
        noted = [ann.stdout.readline().strip()]
        os.kill(ann.pid, signal.SIGKILL)
        cyd = start("cyd")
        said = {"ann": noted + ann.communicate()[0].split(), "bob": bob.communicate()[0].split()}
        said["cyd"] = cyd.communicate()[0].split()
        answers = ratings.answers()
        of_rater = {name: [str(one.triplet) for one in answers if one.rater == name] for name in RATERS}
        assert of_rater["bob"] == said["bob"]
        assert of_rater["cyd"] == said["cyd"]
        assert set(of_rater["ann"]) >= {number for number in said["ann"] if number}
        counts = [sum(one.triplet == row.id for one in answers) for row in ratings.triplets()]
        assert max(counts) == 2
        assert counts.count(2) >= 60 - 2, "all but what the killed one held"


def test_two_raters_get_different_work_until_there_is_nothing_else(tmp_path: Path) -> None:
    with Ratings(tmp_path / "ratings", create=True) as ratings:
        ratings.choose(raters=2, gold_share=0)
        ratings.add(triplets(6))
        ann, bob = ({one.id for one in ratings.lease(name, 3)} for name in ("ann", "bob"))
        assert not ann & bob
        assert {one.id for one in ratings.lease("ann", 6)} == ann | bob


def test_answers_from_elsewhere_take_the_place_of_the_same_peoples(tmp_path: Path) -> None:
    with Ratings(tmp_path / "ratings", create=True) as ratings:
        ratings.add(triplets(1))
        (one,) = ratings.lease("ann", 1)
        ratings.answer("ann", one.id, ("no", "no"))
        new = Answer(triplet=one.id, rater="ann", same="yes", different="unsure", seconds=2.0, time_s=5.0)
        ratings.put([new])
        assert ratings.answers() == [new]
        assert ratings.progress("ann").rated == 1


@pytest.mark.parametrize("content", [b"a,b\n1,2\n" * 500, None])
def test_another_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "other"
    if content is None:
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE answers (a)")
    else:
        path.write_bytes(content)
    with pytest.raises(BadInputError, match="name another"):
        Ratings(path, create=True)
    with pytest.raises(BadInputError, match="no such file"):
        Ratings(tmp_path / "none")


def test_gold_questions_are_checked(tmp_path: Path, catalogue: Catalogue) -> None:
    path = tmp_path / "gold.csv"
    head = "anchor,positive,negative,same,different\n"
    path.write_text(head + "discs-0-0,discs-1-0,discs-0-1,no,NO\ndiscs-0-0,discs-0-1,discs-1-0,yes,yes\n")
    with Ratings(tmp_path / "ratings", create=True) as ratings:
        ratings.add([("discs-0-0", "discs-0-1", "discs-1-0", "discs")])
        assert add_gold(ratings, path, catalogue) == 2
        assert sorted(one.gold for one in ratings.triplets()) == [("no", "no"), ("yes", "yes")]
        path.write_text(head + "discs-0-0,nothing,discs-0-1,no,perhaps\n")
        with pytest.raises(BadInputError, match=r"1 of 1 gold questions.*\n.*unknown id\n.*'nothing'(.|\n)*perhaps"):
            add_gold(ratings, path, catalogue)
        path.write_text("anchor,positive,negative,same\n")
        with pytest.raises(BadInputError, match="needs the column 'different'"):
            add_gold(ratings, path, catalogue)
