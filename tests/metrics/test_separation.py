import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import separation as oracle
from univert.core.errors import BadInputError
from univert.metrics import separation as module
from univert.metrics.separation import separation


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def drawn(seed, sizes=(12, 7, 20), dimensions=6):
    rng = np.random.default_rng(seed)
    vectors = unit(
        rng.normal(size=(sum(sizes), dimensions)) + np.repeat(rng.normal(size=(len(sizes), dimensions)), sizes, 0)
    )
    names = [f"v{code}" for code in np.repeat(np.arange(len(sizes)), sizes)]
    order = rng.permutation(len(names))
    return vectors[order], [names[row] for row in order]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("at_once", [1, 100, 8_000_000])
def test_purity_equals_the_oracle(seed, at_once, monkeypatch):
    monkeypatch.setattr(module, "_SIMILARITIES_AT_ONCE", at_once)
    vectors, verticals = drawn(seed)
    pure = oracle.purity(vectors, verticals)
    found = separation(vectors, verticals)
    assert found.purity == pytest.approx(np.mean(pure))
    for one in found.verticals:
        own = [flag for flag, vertical in zip(pure, verticals, strict=True) if vertical == one.vertical]
        assert one.images == len(own)
        assert one.purity == pytest.approx(np.mean(own))


@pytest.mark.parametrize("sizes", [(12, 7, 20), (3, 4, 2)])  # more and fewer images than dimensions
@pytest.mark.parametrize("k", [1, 2, 6])
def test_energy_equals_the_oracle(sizes, k):
    vectors, verticals = drawn(5, sizes)
    found = separation(vectors, verticals, directions=k)
    names = [one.vertical for one in found.verticals]
    for one in found.verticals:
        assert one.own_energy == pytest.approx(oracle.energy(vectors, verticals, one.vertical, one.vertical, k))
        if k <= min(sizes):
            others = [oracle.energy(vectors, verticals, one.vertical, w, k) for w in names if w != one.vertical]
            assert one.other_energy == pytest.approx(np.mean(others), rel=1e-5)
    assert found.own_energy == pytest.approx(np.mean([one.own_energy for one in found.verticals]))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 200), k=st.integers(1, 8))
def test_it_depends_on_neither_order_nor_rotation_nor_scale_nor_shift(seed, k):
    vectors, verticals = drawn(seed)
    rng = np.random.default_rng(seed)
    found = separation(vectors, verticals, directions=k)
    turned = (vectors @ np.linalg.qr(rng.normal(size=(6, 6)))[0]).astype(np.float32)
    order = rng.permutation(len(vectors))
    for changed, names in (
        (turned, verticals),
        (vectors * 1000.0, verticals),
        (vectors[order], [verticals[row] for row in order]),
        (np.pad(vectors, ((0, 0), (0, 3))), verticals),
    ):
        again = separation(changed, names, directions=k)
        assert again.purity == found.purity
        assert again.own_energy == pytest.approx(found.own_energy, rel=1e-4)
        if k < 6:
            assert again.other_energy == pytest.approx(found.other_energy, rel=1e-4)
    assert 0 <= found.overlap <= 1 + 1e-9
    assert all(0 <= one.other_energy <= one.own_energy + 1e-9 for one in found.verticals)
    shifted = separation(vectors + 5.0, verticals, directions=k)
    assert shifted.own_energy == pytest.approx(found.own_energy, rel=1e-3)


def test_islands_in_subspaces_of_their_own_are_separate():
    rng = np.random.default_rng(0)
    blocks = np.zeros((60, 12), np.float32)
    for vertical in range(3):
        blocks[20 * vertical : 20 * vertical + 20, 4 * vertical : 4 * vertical + 4] = rng.normal(size=(20, 4)) + 2
    found = separation(unit(blocks), ["a"] * 20 + ["b"] * 20 + ["c"] * 20, directions=4)
    assert found.purity == 1.0
    assert found.purity_by_chance == pytest.approx(3 * 20 * 19 / (60 * 59))
    assert found.own_energy > 0.95
    assert found.overlap < 0.25


def test_shuffled_verticals_give_what_chance_gives():
    rng = np.random.default_rng(1)
    vectors = unit(rng.normal(size=(3000, 16)))
    found = separation(vectors, rng.choice(["a", "b", "c"], size=3000, p=[0.6, 0.3, 0.1]).tolist(), directions=4)
    assert found.purity == pytest.approx(found.purity_by_chance, abs=0.03)
    assert found.purity_by_chance == pytest.approx(0.46, abs=0.02)
    assert found.overlap > 0.7


def test_ties_count_against():
    found = separation(np.ones((6, 3), np.float32), list("aabbcc"))
    assert found.purity == 0.0
    assert (found.own_energy, found.other_energy, found.overlap) == (None, None, None)
    # Copies of one image in two verticals: neither finds its own first, however far the rest is.
    vectors = unit(np.repeat(np.random.default_rng(0).normal(size=(40, 64)), 2, axis=0))
    assert separation(vectors, ["a", "b"] * 40).purity == 0.0


def test_directions_without_energy_do_not_count():
    # On a line each: however many directions may count, there is one.
    line = np.outer(np.linspace(1, 2, 20), [1, 0, 0, 0])
    vectors = np.concatenate([line, line[:, [1, 0, 2, 3]]]).astype(np.float32)
    found = separation(vectors, ["a"] * 20 + ["b"] * 20, directions=4)
    assert found.own_energy == pytest.approx(1.0)
    assert found.other_energy == separation(vectors, ["a"] * 20 + ["b"] * 20, directions=2).other_energy


@pytest.mark.parametrize(
    ("verticals", "purity", "other"), [(["a"], None, False), (["a", "a"], 1.0, False), (["a", "b"], 0.0, True)]
)
def test_few_images(verticals, purity, other):
    found = separation(np.eye(3, dtype=np.float32)[: len(verticals)], verticals)
    assert found.purity == purity
    assert (found.other_energy is not None) == other
    assert [one.images for one in found.verticals] == [verticals.count(name) for name in sorted(set(verticals))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vectors": np.zeros((0, 3)), "verticals": []}, "at least one row"),
        ({"vectors": np.full((2, 3), np.nan), "verticals": ["a", "b"]}, "finite"),
        ({"vectors": np.ones((2, 3)), "verticals": ["a"]}, "one entry for each of the 2 rows"),
        ({"vectors": np.ones((2, 3)), "verticals": ["a", "b"], "directions": 0}, "at least 1, got 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message):
    with pytest.raises(BadInputError, match=message):
        separation(**arguments)
