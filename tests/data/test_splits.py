from collections import Counter

import pytest

from univert.data.splits import split_of


def test_known_values_never_change():
    # A change here would move products between splits in catalogues that people build again.
    expected = "test train train train train train test test train train test test"
    assert " ".join(split_of(f"product {n}", "shoes") for n in range(12)) == expected


def test_shares_are_as_asked_for():
    counts = Counter(split_of(f"p{n}", "bags") for n in range(20_000))
    assert counts["train"] / 20_000 == pytest.approx(0.65, abs=0.015)
    assert counts["val"] / 20_000 == pytest.approx(0.10, abs=0.01)
    assert counts["test"] / 20_000 == pytest.approx(0.25, abs=0.015)
