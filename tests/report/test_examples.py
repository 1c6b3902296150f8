import numpy as np
import pytest

from univert.metrics.ranking import rank_queries
from univert.report.examples import possible_queries, retrieve, sample_queries, worst_queries


@pytest.fixture
def labelled():
    """Forty unit vectors, eight products, some unlabelled."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    products = [None if number > 7 else f"p{number}" for number in rng.integers(0, 10, size=40)]
    return vectors.astype(np.float32), products


def test_possible_queries_have_company():
    assert possible_queries(["a", None, "b", "a", None]).tolist() == [0, 3]
    assert possible_queries([]).tolist() == []


def test_sampled_queries_show_different_products(labelled):
    _, products = labelled
    candidates = possible_queries(products)
    drawn = sample_queries(candidates, products, 5, np.random.default_rng(1))
    assert len({products[row] for row in drawn}) == 5
    assert drawn == sample_queries(candidates, products, 5, np.random.default_rng(1))
    everything = sample_queries(candidates, products, 99, np.random.default_rng(1))
    assert len(everything) == len({products[row] for row in candidates})


def test_retrieval_equals_a_naive_ranking(labelled):
    vectors, products = labelled
    gallery = np.asarray([row for row in range(40) if products[row] is not None])
    queries = possible_queries(products)[:6].tolist()
    for query, found in zip(queries, retrieve(vectors, products, queries, gallery, k=5), strict=True):
        others = sorted((float(((vectors[query] - vectors[row]) ** 2).sum()), row) for row in gallery if row != query)
        assert [hit.position for hit in found.hits] == [row for _, row in others[:5]]
        assert [hit.rank for hit in found.hits] == [1, 2, 3, 4, 5]
        for hit, (distance, row) in zip(found.hits, others, strict=False):
            assert hit.distance == pytest.approx(distance, abs=1e-5)
            assert hit.right == (products[row] == products[query])
        ranks = [rank + 1 for rank, (_, row) in enumerate(others) if products[row] == products[query]]
        assert found.first_right.rank == ranks[0]
        assert found.right_in_gallery == len(ranks)


def test_equal_distances_rank_the_wrong_image_first():
    vectors = np.ones((4, 1), np.float32)
    (found,) = retrieve(vectors, ["a", "a", "b", "c"], [0], np.arange(4), k=3)
    assert [hit.right for hit in found.hits] == [False, False, True]
    assert worst_queries(vectors, ["a", "a", "b", "c"], np.array([0, 1]), np.arange(4), count=3) == [0]


def test_a_gallery_smaller_than_k():
    (found,) = retrieve(np.eye(2, dtype=np.float32), ["a", "a"], [1], np.arange(2), k=8)
    assert [(hit.position, hit.right) for hit in found.hits] == [(0, True)]


@pytest.mark.parametrize("block", [1, 90, 10_000])
def test_worst_queries_agree_with_the_metric(labelled, monkeypatch, block):
    monkeypatch.setattr("univert.report.examples._SIMILARITIES_AT_ONCE", block)
    vectors, products = labelled
    gallery = np.asarray([row for row in range(40) if products[row] is not None])
    codes = np.asarray([-1 if product is None else int(product[1:]) for product in products])
    outcome = rank_queries(vectors, codes)
    rank_of = dict(zip(outcome.rows.tolist(), outcome.rank_of_first_hit.tolist(), strict=True))
    worst = worst_queries(vectors, products, possible_queries(products), gallery, count=4)
    best_of_product: dict[str, int] = {}
    for row, rank in rank_of.items():
        best_of_product[products[row]] = max(rank, best_of_product.get(products[row], 0))
    assert [rank_of[row] for row in worst] == sorted(best_of_product.values(), reverse=True)[:4]
    assert len({products[row] for row in worst}) == 4


def test_no_failures_where_all_is_found():
    vectors = np.repeat(np.eye(3, dtype=np.float32), 2, axis=0)
    products = ["a", "a", "b", "b", "c", "c"]
    assert worst_queries(vectors, products, np.arange(6), np.arange(6), count=3) == []
