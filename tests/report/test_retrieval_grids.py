import numpy as np
import pytest

from tests.report.test_page import catalogue_of, vectors_for
from univert.report.retrieval_grids import (
    MOST_VERTICALS,
    Columns,
    answer_queries,
    retrieval_grids,
    sample_queries,
    worst_failures,
)


@pytest.fixture
def labelled():
    """Forty unit vectors, eight products, some unlabelled (-1)."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    codes = rng.integers(0, 10, size=40)
    return vectors.astype(np.float32), np.where(codes > 7, -1, codes)


def test_sampled_queries_show_different_products(labelled):
    _, codes = labelled
    candidates = np.flatnonzero(codes >= 0)
    drawn = sample_queries(candidates, codes, 5, np.random.default_rng(1))
    assert len({codes[row] for row in drawn}) == 5
    assert drawn == sample_queries(candidates, codes, 5, np.random.default_rng(1))
    everything = sample_queries(candidates, codes, 99, np.random.default_rng(1))
    assert len(everything) == len(set(codes[candidates]))


def test_answers_equal_a_naive_ranking(labelled):
    vectors, codes = labelled
    gallery = np.flatnonzero(codes >= 0)
    queries = gallery[:6].tolist()
    for query, found in zip(queries, answer_queries(vectors, codes, queries, gallery, hits=5), strict=True):
        others = sorted((float(((vectors[query] - vectors[row]) ** 2).sum()), row) for row in gallery if row != query)
        assert [hit.position for hit in found.hits] == [row for _, row in others[:5]]
        assert [hit.rank for hit in found.hits] == [1, 2, 3, 4, 5]
        assert [hit.right for hit in found.hits] == [codes[row] == codes[query] for _, row in others[:5]]
        ranks = [rank + 1 for rank, (_, row) in enumerate(others) if codes[row] == codes[query]]
        assert found.first_right.rank == ranks[0]
        assert found.right_in_gallery == len(ranks)


def test_equal_distances_rank_the_wrong_image_first():
    vectors, codes = np.ones((4, 1), np.float32), np.array([0, 0, 1, 2])
    (found,) = answer_queries(vectors, codes, [0], np.arange(4), hits=3)
    assert [hit.right for hit in found.hits] == [False, False, True]


def test_grids_are_true_to_their_galleries(tmp_path):
    rows = [(vertical, f"{vertical}{n}", None) for vertical in ("bags", "shoes") for n in range(5) for _ in range(2)]
    shop = catalogue_of(tmp_path, [*rows, ("shoes", None, None)])
    columns = Columns.of(shop)
    grids, left_out = retrieval_grids(shop, columns, vectors_for(shop))
    assert ([grid.title for grid in grids], left_out) == ([None, "bags", "shoes"], 0)
    for grid in grids:
        assert grid.gallery_images == grid.queries == (20 if grid.title is None else 10)
        for one in grid.answers:
            shown = {one.query, *(hit.position for hit in one.hits)}
            assert shown <= set(grid.pictures)
            assert {columns.vertical[row] for row in shown} <= ({grid.title} if grid.title else {"bags", "shoes"})
            for hit in one.hits:
                assert hit.right == (columns.product[hit.position] == columns.product[one.query])
    failures = worst_failures(shop, columns, vectors_for(shop)).answers
    everyone = answer_queries(vectors_for(shop), columns.codes, range(20), columns.gallery(), hits=1)
    worst = {columns.codes[one.query]: 1 for one in everyone}
    for one in everyone:
        worst[columns.codes[one.query]] = max(worst[columns.codes[one.query]], one.first_right.rank)
    assert [one.first_right.rank for one in failures] == sorted((r for r in worst.values() if r > 1), reverse=True)[:12]
    assert len({columns.codes[one.query] for one in failures}) == len(failures)
    perfect = np.eye(11, dtype=np.float32)[columns.codes]
    assert worst_failures(shop, columns, perfect).answers == []


def test_many_verticals_are_cut_to_those_with_most_queries(tmp_path):
    rows = [(f"v{number:02}", f"p{number}", None) for number in range(MOST_VERTICALS + 2) for _ in range(2)]
    shop = catalogue_of(tmp_path, [*rows, *[("v17", "more", None)] * 2])
    grids, left_out = retrieval_grids(shop, Columns.of(shop), vectors_for(shop))
    assert (len(grids), left_out) == (MOST_VERTICALS + 1, 2)
    assert "v17" in {grid.title for grid in grids}
