"""Mining over the whole set against loops over all triples, through a real index and exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import mining as oracle
from tests.search.conftest import unit
from univert.core.errors import BadInputError
from univert.data.strong_negatives import StrongNegatives
from univert.training import mining as module
from univert.training.mining import Neighbours, index_neighbours, mine_strong_negatives

Shop = tuple[np.ndarray, np.ndarray, np.ndarray]


def shop(seed: int, images: int = 40, products: int = 8, size: int = 4, verticals: int = 2) -> Shop:
    """Products are clouds of images; some images are unlabelled."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, products, images)
    centres = rng.normal(size=(products + 1, size))
    vectors = unit(centres[labels] + 0.5 * rng.normal(size=(images, size)))
    return vectors, labels, labels % verticals


def table(mined: StrongNegatives) -> dict[tuple[int, int], list[int]]:
    rows = zip(mined.anchors.tolist(), mined.positives.tolist(), mined.negatives.tolist(), strict=True)
    return {(a, p): [n for n in negatives if n >= 0] for a, p, negatives in rows}


def exactly(data: Shop) -> Neighbours:
    vectors, products, verticals = data
    return oracle.exact_neighbours(vectors, verticals, products >= 0)


@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 40),
    products=st.integers(1, 8),
    verticals=st.integers(1, 3),
    k=st.integers(1, 5),
    margin=st.sampled_from([0.05, 0.3, 2.0]),
)
@settings(max_examples=40, deadline=None)
def test_equals_the_loop_over_all_triples(
    seed: int, images: int, products: int, verticals: int, k: int, margin: float
) -> None:
    data = shop(seed, images, products, 4, verticals)
    mined = mine_strong_negatives(*data, margin=margin, k=k, positives=40, search=exactly(data))
    assert table(mined) == oracle.strong_negatives(*data, margin, k)
    statistics = mined.statistics
    assert statistics.pairs_cut_short == statistics.protected_pairs == statistics.excluded == 0
    assert statistics.pairs_with_negatives == len(mined)
    assert statistics.anchors_with_negatives == len(set(mined.anchors.tolist()))


@pytest.mark.parametrize("k", [1, 8, 60])
def test_the_index_finds_what_comparing_all_pairs_finds(k: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)  # many distances are tied
    vectors = unit(rng.integers(-1, 2, (90, 4)) + np.array([0.0, 0.0, 0.0, 3.0]))
    verticals, allowed = rng.integers(0, 3, 90) * 7, rng.random(90) < 0.8
    rows = rng.permutation(np.flatnonzero(allowed))[:40]
    found = index_neighbours(tmp_path / "index", vectors, verticals, allowed)(rows, k)
    expected = oracle.exact_neighbours(vectors, verticals, allowed)(rows, k)
    np.testing.assert_array_equal(found >= 0, expected >= 0)

    def distances(near: np.ndarray) -> np.ndarray:
        return np.where(near < 0, -1, ((vectors[rows, None] - vectors[near]) ** 2).sum(2))

    np.testing.assert_allclose(distances(found), distances(expected), atol=1e-6)
    for row, near in zip(rows, found, strict=True):
        near = near[near >= 0]
        assert (verticals[near] == verticals[row]).all()
        assert allowed[near].all()


@pytest.mark.parametrize("chunk", [3, 1024])
def test_a_real_index_gives_the_same_table(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = shop(0, 150, 30, 6, 3)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", chunk)
    monkeypatch.setattr(module, "_NUMBERS_AT_ONCE", 500 * chunk)
    mined = mine_strong_negatives(*data, margin=0.3, k=4, neighbours=20)
    exact = mine_strong_negatives(*data, margin=0.3, k=4, neighbours=20, search=exactly(data))
    assert len(mined) > 50
    assert table(mined) == table(exact)
    assert mined.statistics == exact.statistics


def test_too_few_neighbours_are_counted_and_what_is_found_is_still_right() -> None:
    data = shop(1, 150, 30, 6, 1)
    whole = oracle.strong_negatives(*data, 0.3, 3)
    mined = mine_strong_negatives(*data, margin=0.3, k=3, neighbours=8, positives=40)
    found, statistics = table(mined), mined.statistics
    for pair, negatives in found.items():
        assert negatives == whole[pair][: len(negatives)]
    wrong = sum(found.get(pair, []) != negatives for pair, negatives in whole.items())
    assert 0 < wrong <= statistics.pairs_cut_short < statistics.pairs
    enough = mine_strong_negatives(*data, margin=0.3, k=3, neighbours=150, positives=40)
    assert enough.statistics.pairs_cut_short == 0
    assert table(enough) == whole


def test_positives_are_limited_and_drawn_evenly() -> None:
    vectors, _, _ = shop(2, 60)
    products = np.repeat([0, 1, 2], [30, 29, 1])
    pairs = module._pairs(products, 4, seed=0)
    assert (np.bincount(pairs[:, 0], minlength=60)[:59] == 4).all()
    assert (np.bincount(pairs[:, 1], minlength=60)[:59] == 4).all()
    assert (products[pairs[:, 0]] == products[pairs[:, 1]]).all()
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    assert not np.array_equal(pairs, module._pairs(products, 4, seed=1))
    assert mine_strong_negatives(vectors, products, positives=4).statistics.pairs == len(pairs)


def pictures(seed: int, images: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Images with the same number show the same picture."""
    shown = np.random.default_rng(1000 + seed).integers(0, 30, images)

    def same(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        return np.asarray(shown[rows] == shown[others])

    return same


@pytest.mark.parametrize("seed", range(2))
def test_products_that_share_a_picture_are_no_negatives_of_each_other(seed: int) -> None:
    data = shop(seed, 60, 12, 4, 2)
    products = data[1]
    same = pictures(seed, 60)
    # the oracle compares all images of two products, mining those of anchors: give every product two images
    keep = np.isin(products, [p for p in range(12) if (products == p).sum() > 1])
    data = (data[0], np.where(keep, products, -1), data[2])
    mined = mine_strong_negatives(*data, margin=0.5, k=50, positives=60, protect=same)
    expected = oracle.strong_negatives(*data, 0.5, 50, lambda i, j: bool(same(np.array([i]), np.array([j]))[0]))
    assert table(mined) == expected
    free = mine_strong_negatives(*data, margin=0.5, k=50, positives=60)
    lost = sum(map(len, table(free).values())) - sum(map(len, table(mined).values()))
    assert mined.statistics.excluded == lost > 0
    assert mined.statistics.protected_pairs == len(mined.protected) > 0
    for i, j in mined.protected.tolist():
        assert i < j
        assert data[1][i] != data[1][j]
        assert data[2][i] == data[2][j]
        assert same(np.array([i]), np.array([j]))[0]
    assert len({tuple(sorted(data[1][pair])) for pair in mined.protected}) == (mined.statistics.protected_products)


def test_a_copy_of_the_positive_is_protected_even_out_of_the_anchors_sight() -> None:
    """The negative is a copy of the positive, and no anchor itself looks like it."""
    vectors = unit(np.array([[1, 0], [0.8, 0.6], [0.79, 0.62], [0.0, 1]]))
    products = np.array([0, 0, 1, 1])

    def same(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        return np.asarray((np.minimum(rows, others) == 1) & (np.maximum(rows, others) == 2))

    unprotected = mine_strong_negatives(vectors, products, margin=0.3)
    assert table(unprotected)[0, 1] == [2]
    mined = mine_strong_negatives(vectors, products, margin=0.3, protect=same, neighbours=2)
    assert len(mined) == 0
    assert mined.protected.tolist() == [[1, 2]]
    assert mined.statistics.excluded > 0


@pytest.mark.parametrize(
    "products", [[], [0], [-1, -1, -1], [0, 1, 2]], ids=["empty", "one", "unlabelled", "no positives"]
)
def test_nothing_to_mine_gives_an_empty_table(products: list[int]) -> None:
    mined = mine_strong_negatives(unit(np.ones((len(products), 3))), np.array(products, int))
    assert len(mined) == mined.statistics.pairs == 0
    collapsed = mine_strong_negatives(unit(np.ones((6, 3))), np.array([0, 0, 1, 1, 2, 2]))
    assert (len(collapsed), collapsed.statistics.pairs) == (0, 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"margin": 0}, "margin"),
        ({"k": 0}, "k must"),
        ({"neighbours": 0}, "neighbours"),
        ({"positives": 0}, "positives"),
        ({"vectors": np.ones((5, 3))}, "unit vectors"),
        ({"vectors": np.full((5, 3), np.nan)}, "finite"),
        ({"vectors": np.ones(5)}, "shape"),
        ({"products": np.zeros(4, int)}, "equally many"),
        ({"verticals": np.zeros(6, int)}, "equally many"),
    ],
)
def test_what_cannot_be_mined_is_refused(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"vectors": unit(np.ones((5, 3))), "products": np.array([0, 0, 1, 1, 2])}
    with pytest.raises(BadInputError, match=message):
        mine_strong_negatives(**arguments | changes)
