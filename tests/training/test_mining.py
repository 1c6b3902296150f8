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
from univert.training.mining import mine_strong_negatives
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
    mined = mine_strong_negatives(*data, margin=margin, k=k, positives=40)
    assert table(mined) == oracle.strong_negatives(*data, margin, k)
    searched = [a for a, own in enumerate(data[1]) if own >= 0 and (data[1] == own).sum() > 1]
    assert mined.anchors_searched == len(searched)
    assert mined.share == len(set(mined.anchors.tolist())) / max(1, len(searched))


def test_the_table_is_the_same_a_chunk_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    data = shop(0, 150, 30, 6, 3)
    whole = mine_strong_negatives(*data, margin=0.3, k=4)
    monkeypatch.setattr(module, "_NUMBERS_AT_ONCE", 1500)
    assert len(whole) > 50
    assert table(mine_strong_negatives(*data, margin=0.3, k=4)) == table(whole)


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
    assert sum(map(len, table(free).values())) > sum(map(len, table(mined).values()))
    assert len(mined.protected)
    for i, j in mined.protected.tolist():
        assert i < j
        assert data[1][i] != data[1][j]
        assert data[2][i] == data[2][j]
        assert same(np.array([i]), np.array([j]))[0]


@pytest.mark.parametrize("products", [[], [-1, -1, -1], [0, 1, 2]], ids=["empty", "unlabelled", "no positives"])
def test_nothing_to_mine_gives_an_empty_table(products: list[int]) -> None:
    mined = mine_strong_negatives(unit(np.ones((len(products), 3))), np.array(products, int))
    assert len(mined) == mined.anchors_searched == mined.share == 0
    collapsed = mine_strong_negatives(unit(np.ones((6, 3))), np.array([0, 0, 1, 1, 2, 2]))
    assert (len(collapsed), collapsed.anchors_searched) == (0, 6)


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
