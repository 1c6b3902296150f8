"""How well raters agree, whom to believe how far, and which triplets are clean (Krippendorff; Dawid and Skene)."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from univert.core.errors import BadInputError
from univert.curation.dawid_skene import dawid_skene
from univert.data.ratings import QUESTIONS, Answer, RatedTriplet, Ratings
from univert.data.tables import csv_text
from univert.data.triplets import ROLES

GOLD_QUESTIONS_LEAST = 10
"""Answers to gold questions, two a triplet, before anybody is set aside: fewer say too little."""

Unit = tuple[int, str]
"""What is rated: a question about a triplet."""
Votes = Mapping[str, bool]
"""What raters said of a unit, yes or no; who was unsure is not in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RaterSummary:
    """One rater: how much they said, and how right it is.

    Attributes:
        unsure: share of their answers to the two questions that are "unsure".
        seconds: the median that a triplet took; None where no time is known.
        gold: gold questions answered; `gold_right`: the share of them that is right, "unsure" being wrong.
        accuracy: how often they are right by Dawid and Skene's estimate; None of who was set aside.
        alpha: Krippendorff's against the majority of the others; None where there is too little to compare.
        set_aside: why their answers count for nothing; None: they count.
    """

    name: str
    answers: int
    unsure: float
    seconds: float | None
    gold: int
    gold_right: float | None
    accuracy: float | None
    alpha: float | None
    set_aside: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class VerticalSummary:
    """One vertical: triplets, those with enough answers, those that are clean, and how well raters agree."""

    vertical: str
    triplets: int
    rated: int
    clean: int
    alpha: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """All of a file of ratings. Gold questions are in no count but the raters'; every alpha is of those who count."""

    triplets: int
    rated: int
    clean: int
    alpha: float | None
    alpha_same: float | None
    alpha_different: float | None
    verticals: tuple[VerticalSummary, ...]
    raters: tuple[RaterSummary, ...]


class Agreement:
    """What the answers in a file of ratings come to, as they stand now.

    Args:
        ratings: the file.
        gold_accuracy: raters who have a smaller share of at least `GOLD_QUESTIONS_LEAST` gold questions right are set
            aside.

    Attributes:
        set_aside: of each rater who is, why.
        yes: of each question about a triplet, how probable a yes is.
        probability: of each triplet that somebody who counts decided, how probable it is that it is right: that its
            positive shows the same product and its negative another one.
        accuracy: of each rater who counts, how often they are right by Dawid and Skene's estimate.

    Raises:
        BadInputError: a package of the extra `curate` is missing.
    """

    def __init__(self, ratings: Ratings, *, gold_accuracy: float = 0.7) -> None:
        self._most = ratings.raters
        self._answers = ratings.answers()
        self._triplets = {triplet.id: triplet for triplet in ratings.triplets()}
        self._gold = {
            (triplet.id, question): known == "yes"
            for triplet in self._triplets.values()
            for question, known in zip(QUESTIONS, triplet.gold or (), strict=False)
        }
        self._of_rater: dict[str, list[Answer]] = defaultdict(list)
        for answer in self._answers:
            self._of_rater[answer.rater].append(answer)
        self.set_aside: dict[str, str] = {}
        for name in self._of_rater:
            asked, right = self._gold_right(name)
            if asked >= GOLD_QUESTIONS_LEAST and right < gold_accuracy * asked:
                self.set_aside[name] = f"{right} of {asked} gold questions right, below {gold_accuracy:.0%}"
        votes: dict[Unit, dict[str, bool]] = defaultdict(dict)
        for answer in self._answers:
            for question in QUESTIONS:
                if (said := getattr(answer, question)) != "unsure":
                    votes[answer.triplet, question][answer.rater] = said == "yes"
        self._all_votes: Mapping[Unit, Votes] = votes
        self._votes = {
            unit: {rater: said for rater, said in of_unit.items() if rater not in self.set_aside}
            for unit, of_unit in votes.items()
        }
        self._votes = {unit: of_unit for unit, of_unit in self._votes.items() if of_unit}
        self.yes, self.accuracy = _dawid_skene(self._votes, self._gold)
        self.probability = {
            number: self.yes[number, "same"] * self.yes[number, "different"]
            for number, triplet in self._triplets.items()
            if triplet.gold is None and all((number, question) in self.yes for question in QUESTIONS)
        }

    def clean(self, posterior: float = 0.95) -> list[RatedTriplet]:
        """The triplets whose probability to be right is at least `posterior`.

        Each question must have been decided by two raters who count, or by one where every triplet goes to one alone.
        """
        least = min(2, self._most)
        return [
            self._triplets[number]
            for number, probability in self.probability.items()
            if probability >= posterior and all(len(self._votes[number, question]) >= least for question in QUESTIONS)
        ]

    def summary(self, posterior: float = 0.95) -> Summary:
        """Counts and agreement, over all, for each vertical and for each rater."""
        ordinary = [triplet for triplet in self._triplets.values() if triplet.gold is None]
        given: dict[int, int] = defaultdict(int)
        for answer in self._answers:
            given[answer.triplet] += 1
        rated = {triplet.id for triplet in ordinary if given[triplet.id] >= self._most}
        clean = {triplet.id for triplet in self.clean(posterior)}
        verticals = []
        for name in sorted({triplet.vertical for triplet in ordinary}):
            inside = {triplet.id for triplet in ordinary if triplet.vertical == name}
            verticals.append(
                VerticalSummary(
                    vertical=name,
                    triplets=len(inside),
                    rated=len(inside & rated),
                    clean=len(inside & clean),
                    alpha=self._alpha(lambda unit, inside=inside: unit[0] in inside),  # type: ignore[misc]
                )
            )
        return Summary(
            triplets=len(ordinary),
            rated=len(rated),
            clean=len(clean),
            alpha=self._alpha(lambda unit: True),
            alpha_same=self._alpha(lambda unit: unit[1] == "same"),
            alpha_different=self._alpha(lambda unit: unit[1] == "different"),
            verticals=tuple(verticals),
            raters=tuple(self._rater(name) for name in sorted(self._of_rater)),
        )

    def _alpha(self, wanted: Callable[[Unit], bool]) -> float | None:
        return krippendorff_alpha(
            votes.values() for unit, votes in self._votes.items() if unit not in self._gold and wanted(unit)
        )

    def _rater(self, name: str) -> RaterSummary:
        answers = self._of_rater[name]
        said = [getattr(answer, question) for answer in answers for question in QUESTIONS]
        seconds = [answer.seconds for answer in answers if answer.seconds is not None]
        asked, right = self._gold_right(name)
        pairs = []
        for unit, votes in self._all_votes.items():
            others = [said for rater, said in self._votes.get(unit, {}).items() if rater != name]
            if name in votes and unit not in self._gold and 2 * sum(others) != len(others):
                pairs.append((votes[name], 2 * sum(others) > len(others)))
        return RaterSummary(
            name=name,
            answers=len(answers),
            unsure=said.count("unsure") / len(said),
            seconds=statistics.median(seconds) if seconds else None,
            gold=asked,
            gold_right=right / asked if asked else None,
            accuracy=self.accuracy.get(name),
            alpha=krippendorff_alpha(pairs),
            set_aside=self.set_aside.get(name),
        )

    def _gold_right(self, name: str) -> tuple[int, int]:
        """Of the gold questions that a rater answered, how many, and how many rightly."""
        hits = [
            getattr(answer, question) == ("yes" if self._gold[answer.triplet, question] else "no")
            for answer in self._of_rater[name]
            for question in QUESTIONS
            if (answer.triplet, question) in self._gold
        ]
        return len(hits), sum(hits)


def krippendorff_alpha(units: Iterable[Iterable[bool]]) -> float | None:
    """Krippendorff's alpha of yes and no: 1 where all agree, 0 where raters might as well guess.

    Args:
        units: what was said of each thing that was rated, by however many; with fewer than two it tells nothing.

    Returns:
        None where no two raters rated the same thing, or all said the same of everything.

    Example:
        >>> round(krippendorff_alpha([(True, True), (True, False), (False, False), (False, False)]), 3)
        0.533
    """
    try:
        import krippendorff
    except ImportError as error:
        raise BadInputError(f"this needs {error.name}, which is missing: pip install 'univert[curate]'") from None
    counts = [(votes.count(False), votes.count(True)) for votes in map(list, units) if len(votes) > 1]
    if not all(map(sum, zip(*counts, strict=True))) or not counts:
        return None
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))


def triplets_csv(triplets: Iterable[RatedTriplet]) -> str:
    """Triplets as the CSV file that `univert finetune --triplets` takes."""
    columns = (*ROLES, "vertical")
    return csv_text(columns, ([getattr(triplet, column) for column in columns] for triplet in triplets))


def answers_csv(ratings: Ratings) -> str:
    """All answers as a CSV file, each with its triplet."""
    columns = (*ROLES, "vertical", "rater", *QUESTIONS, "seconds", "time_s", "gold_same", "gold_different")
    triplets = {triplet.id: triplet for triplet in ratings.triplets()}
    rows = []
    for answer in ratings.answers():
        of = triplets[answer.triplet]
        rows.append((
            of.anchor, of.positive, of.negative, of.vertical, answer.rater, answer.same, answer.different,
            answer.seconds, round(answer.time_s, 3), *(of.gold or ("", "")),
        ))  # fmt: skip
    return csv_text(columns, rows)


def _dawid_skene(votes: Mapping[Unit, Votes], gold: Mapping[Unit, bool]) -> tuple[dict[Unit, float], dict[str, float]]:
    """How probable a yes is for each unit, and how often each rater is right; each question by itself."""
    yes: dict[Unit, float] = {}
    right: dict[str, list[float]] = defaultdict(list)
    for question in QUESTIONS:
        of_question = {unit: said for unit, said in votes.items() if unit[1] == question}
        if len({vote for said in of_question.values() for vote in said.values()}) < 2:
            yes |= {unit: float(all(said.values())) for unit, said in of_question.items()}  # nothing to tell apart
            continue
        units = list(of_question)
        raters = sorted({rater for said in of_question.values() for rater in said})
        rows = [
            (number, raters.index(rater), vote)
            for number, unit in enumerate(units)
            for rater, vote in of_question[unit].items()
        ]
        asked, voters, said_yes = (np.array(column) for column in zip(*rows, strict=True))
        known = np.array([float(gold[unit]) if unit in gold else np.nan for unit in units])
        found = dawid_skene(asked, voters, said_yes.astype(bool), known=known)
        yes |= dict(zip(units, found.yes.tolist(), strict=True))
        for rater, share in zip(raters, found.accuracy.tolist(), strict=True):
            right[rater].append(share)
    return yes, {rater: statistics.mean(shares) for rater, shares in right.items()}
