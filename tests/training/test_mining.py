"""Mining the whole set against loops over all triples."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import mining as oracle
from tests.search.conftest import unit
from univert.core.errors import BadInputError
from univert.data.samplers import StrongNegativeSampler
from univert.data.strong_negatives import StrongNegatives
from univert.training import mining as module
from univert.training.mining import Neighbours, mine_strong_negatives
from univert.training.remining import ReminingSampler

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


def test_a_real_index_gives_the_same_table_a_chunk_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    data = shop(0, 150, 30, 6, 3)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 20)
    monkeypatch.setattr(module, "_NUMBERS_AT_ONCE", 1500)
    mined = mine_strong_negatives(*data, margin=0.3, k=4, neighbours=20)
    exact = mine_strong_negatives(*data, margin=0.3, k=4, neighbours=20, search=exactly(data))
    assert len(mined) > 50
    assert table(mined) == table(exact)
    assert mined.statistics == exact.statistics


@pytest.mark.parametrize("margin", [0.05, 0.3])
@pytest.mark.parametrize("verticals", [1, 3])
def test_with_too_few_neighbours_no_pair_is_lost_and_what_is_found_is_still_right(
    monkeypatch: pytest.MonkeyPatch, margin: float, verticals: int
) -> None:
    monkeypatch.setattr(module, "_NUMBERS_AT_ONCE", 3000)
    data = shop(1, 150, 30, 6, verticals)
    whole = oracle.strong_negatives(*data, margin, 3)
    mined = mine_strong_negatives(*data, margin=margin, k=3, neighbours=8, positives=40)
    found, statistics = table(mined), mined.statistics
    assert list(found) == sorted(whole), "not even those with the farthest positives"
    for pair, negatives in found.items():
        assert negatives == whole[pair][: len(negatives)]
    wrong = sum(found.get(pair, []) != negatives for pair, negatives in whole.items())
    assert 0 < wrong <= statistics.pairs_cut_short < statistics.pairs
    enough = mine_strong_negatives(*data, margin=margin, k=3, neighbours=150, positives=40)
    assert enough.statistics.pairs_cut_short == 0
    assert table(enough) == whole


def test_products_that_share_a_picture_are_no_negatives_of_each_other() -> None:
    data = shop(0, 60, 12, 4, 2)
    products, shown = data[1], np.random.default_rng(1000).integers(0, 30, 60)

    def same(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        return np.asarray(shown[rows] == shown[others])

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


@pytest.mark.parametrize("products", [[], [-1, -1, -1], [0, 1, 2]], ids=["empty", "unlabelled", "no positives"])
def test_nothing_to_mine_gives_an_empty_table(products: list[int]) -> None:
    mined = mine_strong_negatives(unit(np.ones((len(products), 3))), np.array(products, int))
    assert len(mined) == mined.statistics.pairs == 0
    collapsed = mine_strong_negatives(unit(np.ones((6, 3))), np.array([0, 0, 1, 1, 2, 2]))
    assert (len(collapsed), collapsed.statistics.pairs) == (0, 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"margin": 0}, "margin"),
        ({"vectors": np.ones((5, 3))}, "unit vectors"),
        ({"vectors": np.full((5, 3), np.nan)}, "finite"),
        ({"vectors": np.ones(5)}, "shape"),
        ({"products": np.zeros(4, int)}, "equally many"),
    ],
)
def test_what_cannot_be_mined_is_refused(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"vectors": unit(np.ones((5, 3))), "products": np.array([0, 0, 1, 1, 2])}
    with pytest.raises(BadInputError, match=message):
        mine_strong_negatives(**arguments | changes)


def test_a_table_is_mined_once_and_kept(tmp_path: Path) -> None:
    products = np.repeat(np.arange(6), 2)
    mined = []

    def mine() -> StrongNegatives:
        mined.append(len(mined))
        return StrongNegatives.none()

    def sampler() -> ReminingSampler:
        return ReminingSampler(
            mine,
            lambda table: StrongNegativeSampler(products, table, batch_size=8, images_per_product=2),
            every_steps=10,
            folder=tmp_path,
        )

    first = sampler()
    batches = [first.batch(step) for step in range(25)]
    assert len(mined) == 3
    again = sampler()
    for step in reversed(range(25)):
        np.testing.assert_array_equal(again.batch(step), batches[step])
    assert len(mined) == 3
