"""Dawid and Skene's estimate beside a naive one, question by question."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from univert.curation import dawid_skene as module
from univert.curation.dawid_skene import dawid_skene


def naive(said: list[dict[int, bool]], known: list[float], raters: int, rounds: int) -> list[float]:
    """As the model is written down: products of probabilities, one question at a time."""
    yes = [sum(one.values()) / len(one) if math.isnan(k) else k for one, k in zip(said, known, strict=True)]
    for _ in range(rounds):
        prior = sum(yes) / len(yes)
        rates = {}
        for rater in range(raters):
            for truth in (True, False):
                share = [p if truth else 1 - p for p in yes]
                asked = sum(s for s, one in zip(share, said, strict=True) if rater in one)
                agreed = sum(s for s, one in zip(share, said, strict=True) if one.get(rater))
                rates[rater, truth] = (agreed + 0.01) / (asked + 0.02)
        for number, (one, k) in enumerate(zip(said, known, strict=True)):
            for_yes, for_no = prior, 1 - prior
            for rater, vote in one.items():
                for_yes *= rates[rater, True] if vote else 1 - rates[rater, True]
                for_no *= rates[rater, False] if vote else 1 - rates[rater, False]
            yes[number] = k if not math.isnan(k) else for_yes / (for_yes + for_no)
    return yes


@given(st.data())
def test_it_is_what_the_model_says(data: st.DataObject) -> None:
    raters = data.draw(st.integers(1, 4))
    votes = st.dictionaries(st.integers(0, raters - 1), st.booleans(), min_size=1)
    said = [dict(enumerate([True] * raters)), *data.draw(st.lists(votes, min_size=1, max_size=8))]
    known = [
        math.nan,
        *data.draw(st.lists(st.sampled_from([0.0, 1.0, math.nan]), min_size=len(said) - 1, max_size=len(said) - 1)),
    ]
    rows = [(number, rater, vote) for number, one in enumerate(said) for rater, vote in one.items()]
    questions, who, answers = (np.array(column) for column in zip(*rows, strict=True))
    before, module.MOST_ROUNDS = module.MOST_ROUNDS, 3
    try:
        found = dawid_skene(questions, who, answers.astype(bool), known=np.array(known))
    finally:
        module.MOST_ROUNDS = before
    np.testing.assert_allclose(found.yes, naive(said, known, raters, 3), atol=1e-5)


def test_raters_are_told_apart() -> None:
    rng, skill = np.random.default_rng(0), np.array([0.97, 0.9, 0.8, 0.5])
    truth = rng.random(2000) < 0.6
    questions, who = np.repeat(np.arange(2000), 4), np.tile(np.arange(4), 2000)
    answers = truth[questions] == (rng.random(8000) < skill[who])
    found = dawid_skene(questions, who, answers, known=np.full(2000, np.nan))
    np.testing.assert_allclose(found.accuracy, skill, atol=0.03)
    assert ((found.yes > 0.5) == truth).mean() > 0.96
