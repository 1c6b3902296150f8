import numpy as np
import pytest

from tests.oracles import separation as oracle
from univert.core.errors import BadInputError
from univert.metrics.separation import separation


def drawn(seed, sizes=(12, 7, 20), dimensions=6):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(sum(sizes), dimensions)) + np.repeat(rng.normal(size=(len(sizes), dimensions)), sizes, 0)
    names = [f"v{code}" for code in np.repeat(np.arange(len(sizes)), sizes)]
    order = rng.permutation(len(names))
    return vectors[order].astype(np.float32), [names[row] for row in order]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_purity_equals_the_oracle(seed):
    vectors, verticals = drawn(seed)
    pure = oracle.purity(vectors, verticals)
    found = separation(vectors, verticals)
    assert found.purity == pytest.approx(np.mean(pure))
    assert found.purity_by_chance == pytest.approx((12 * 11 + 7 * 6 + 20 * 19) / (39 * 38))
    for one in found.verticals:
        own = [flag for flag, vertical in zip(pure, verticals, strict=True) if vertical == one.vertical]
        assert (one.images, one.purity) == (len(own), pytest.approx(np.mean(own)))
    assert separation(1000 * vectors, verticals) == separation(vectors[::-1], verticals[::-1]) == found


def test_ties_count_against():
    assert separation(np.ones((6, 3), np.float32), list("aabbcc")).purity == 0.0
    # Copies of one image in two verticals: neither finds its own first, however far the rest is.
    vectors = np.repeat(np.random.default_rng(0).normal(size=(40, 64)), 2, axis=0)
    assert separation(vectors, ["a", "b"] * 40).purity == 0.0


@pytest.mark.parametrize(("verticals", "purity"), [(["a"], None), (["a", "a"], 1.0), (["a", "b"], 0.0)])
def test_few_images(verticals, purity):
    found = separation(np.eye(3, dtype=np.float32)[: len(verticals)], verticals)
    assert found.purity == purity
    assert [one.images for one in found.verticals] == [verticals.count(name) for name in sorted(set(verticals))]


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(BadInputError, match="one entry for each of the 2 rows"):
        separation(np.ones((2, 3)), ["a"])
