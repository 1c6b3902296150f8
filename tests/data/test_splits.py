from collections import Counter

import pytest

from univert.core.errors import BadInputError
from univert.data.splits import SplitFractions, split_of


def test_known_values_never_change():
    # A change here would move products between splits in catalogues that people build again.
    expected = "test train train train train train test test train train test test"
    assert " ".join(split_of(f"product {n}", "shoes") for n in range(12)) == expected


def test_shares_are_as_asked_for():
    counts = Counter(split_of(f"p{n}", "bags") for n in range(20_000))
    assert counts["train"] / 20_000 == pytest.approx(0.65, abs=0.015)
    assert counts["val"] / 20_000 == pytest.approx(0.10, abs=0.01)
    assert counts["test"] / 20_000 == pytest.approx(0.25, abs=0.015)


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (1.2, -0.2, 0.0), (float("nan"), 0.5, 0.5)])
def test_bad_fractions(shares):
    with pytest.raises(BadInputError, match="add up to 1"):
        SplitFractions(train=shares[0], val=shares[1], test=shares[2])
