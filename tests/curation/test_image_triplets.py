from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from univert.curation.image_triplets import KeptResults, make_triplets
from univert.data.duplicates import NearDuplicates

PICTURES = 6
"""Of each query."""


def kept(queries: int = 5, verticals: int = 2, seed: int = 0, shared: int = 0) -> KeptResults:
    """Queries with pictures around a direction of their own; the first queries share their last `shared` pictures."""
    rng = np.random.default_rng(seed)
    count = queries * verticals
    centres = rng.normal(size=(count, 8))
    vectors = (centres[:, None] + 0.4 * rng.normal(size=(count, PICTURES, 8))).reshape(-1, 8)
    query, picture = np.repeat(np.arange(count), PICTURES), np.arange(count * PICTURES)
    if shared:
        query, picture = np.append(query, [1] * shared), np.append(picture, np.arange(PICTURES - shared, PICTURES))
    return KeptResults(
        vertical=np.array([f"vertical {number % verticals}" for number in query]),
        query=np.array([f"query {number}" for number in query]),
        picture=picture,
        vectors=(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
        near=NearDuplicates(
            bits=rng.integers(0, 2**63, len(vectors)).astype(np.uint64), colours=np.zeros((len(vectors), 48), np.uint8)
        ),
    )


def queries_of(results: KeptResults, picture: int) -> set[str]:
    return set(results.query[results.picture == picture].tolist())


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.integers(1, 3), st.integers(0, 3), st.integers(0, 10_000), st.integers(1, 60))
def test_every_triplet_is_what_it_claims(queries: int, verticals: int, shared: int, seed: int, most: int) -> None:
    results = kept(queries, verticals, seed, shared if verticals == 1 else 0)
    found = list(make_triplets(results, per_vertical=most, seed=seed))
    for one in found:
        anchor, positive, negative = results.vectors[[one.anchor, one.positive, one.negative]]
        assert one.query in queries_of(results, one.anchor) & queries_of(results, one.positive)
        theirs = queries_of(results, one.anchor) | queries_of(results, one.positive)
        assert not theirs & queries_of(results, one.negative)
        assert set(results.vertical[results.picture == one.negative]) == {one.vertical}
        assert anchor @ positive > anchor @ negative  # semi-hard
        assert len({one.anchor, one.positive, one.negative}) == 3
    assert max(Counter(one.vertical for one in found).values(), default=0) <= most
    assert len({(one.query, one.anchor) for one in found}) == len(found)


def test_queries_take_turns() -> None:
    results = kept(queries=5, verticals=1)
    counts = Counter(one.query for one in make_triplets(results, per_vertical=10))
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len(counts) == 5


def test_near_duplicates_and_lonely_pictures_are_no_positive() -> None:
    results = kept(queries=3, verticals=1)
    results.near.bits[:PICTURES] = 7
    assert "query 0" not in {one.query for one in make_triplets(results, per_vertical=1000)}
    assert list(make_triplets(kept(queries=1, verticals=2), per_vertical=5)) == []  # nothing to be a negative


def test_copies_under_another_query_are_no_negatives() -> None:
    results = kept(queries=2, verticals=1)
    results.vectors[PICTURES:] = results.vectors[:PICTURES] - 1e-3  # nearest of all, but for the copies' sake not taken
    results.near.bits[PICTURES : 2 * PICTURES] = results.near.bits[:PICTURES]
    found = list(make_triplets(results, per_vertical=1000))
    assert found
    for one in found:
        assert one.negative % PICTURES not in (one.anchor % PICTURES, one.positive % PICTURES)


@pytest.mark.parametrize("seed", range(2))
def test_the_seed_decides(seed: int) -> None:
    results = kept()
    first, again, other = (list(make_triplets(results, per_vertical=20, seed=s)) for s in (seed, seed, seed + 2))
    assert first == again != other
