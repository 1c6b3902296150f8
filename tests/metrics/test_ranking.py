import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import retrieval as oracle
from univert.core.errors import BadInputError
from univert.metrics import ranks
from univert.metrics.ranking import TIE_TOLERANCE, QueryOutcome, map_at_r, rank_queries, recall_at_k

Set = tuple[np.ndarray, list[str | None]]


@st.composite
def labelled_sets(draw: st.DrawFn, *, rows: int = 24, shared: bool = False) -> Set:
    """Few distinct small-integer vectors: ties and exact copies everywhere, distances exact in float32."""
    count = draw(st.integers(1 if shared else 2, rows))
    size = draw(st.just(2) if shared else st.integers(1, 4))
    cells = st.integers(-2, 2)
    vectors = draw(st.lists(st.lists(cells, min_size=size, max_size=size), min_size=count, max_size=count))
    names = st.sampled_from(["a", "b", "c", "d", "e", None])
    labels = draw(st.lists(names, min_size=count, max_size=count))
    return np.array(vectors, dtype=np.float32), labels


@contextlib.contextmanager
def chunks(queries: int, gallery: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "_QUERIES_AT_ONCE", queries)
        patch.setattr(ranks, "_GALLERY_AT_ONCE", gallery)
        yield


def assert_as_oracle(outcome: QueryOutcome, ranked: dict[int, list[bool]]) -> None:
    assert outcome.rows.tolist() == sorted(ranked)
    relevance = [ranked[row] for row in sorted(ranked)]
    assert outcome.rank_of_first_hit.tolist() == [oracle.rank_of_first_hit(one) for one in relevance]
    assert outcome.average_precision_at_r is not None
    expected = [oracle.average_precision_at_r(one) for one in relevance]
    np.testing.assert_allclose(outcome.average_precision_at_r, expected, rtol=0, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(labelled_sets(), st.none() | st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 30))
def test_leave_one_out_equals_the_oracle_whatever_the_chunks(
    data: Set, seed: int | None, query_chunk: int, gallery_chunk: int
) -> None:
    """Over the vectors themselves, and over other vectors of the same images."""
    vectors, labels = data
    options: dict[str, Any] = {}
    stored = None
    if seed is not None:
        stored = np.random.default_rng(seed).integers(-2, 3, size=vectors.shape).astype(np.float32)
        options = {"gallery_vectors": stored, "leave_one_out": True}
    ranked = oracle.ranked_relevance(vectors, labels, stored)
    if not ranked:
        with pytest.raises(BadInputError, match="no query"):
            rank_queries(vectors, labels, **options)
        return
    with chunks(query_chunk, gallery_chunk):
        assert_as_oracle(rank_queries(vectors, labels, **options), ranked)


@settings(max_examples=60, deadline=None)
@given(labelled_sets(shared=True), labelled_sets(shared=True), st.integers(1, 30), st.integers(1, 30))
def test_a_separate_gallery_equals_the_oracle(queries: Set, gallery: Set, query_chunk: int, gallery_chunk: int) -> None:
    ranked = oracle.ranked_relevance(*queries, *gallery)
    arguments = {"gallery_vectors": gallery[0], "gallery_labels": gallery[1]}
    if not ranked:
        with pytest.raises(BadInputError, match="no query"):
            rank_queries(*queries, **arguments)
        return
    with chunks(query_chunk, gallery_chunk):
        assert_as_oracle(rank_queries(*queries, **arguments), ranked)


def sphere(
    rng: np.random.Generator, products: int, images: int, size: int, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(products), images)
    vectors = rng.standard_normal((products, size))[labels] + spread * rng.standard_normal((len(labels), size))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), labels


@pytest.mark.parametrize(("products", "images"), [(60, 5), (4, 70)], ids=["passes", "binary search"])
def test_random_unit_vectors_equal_the_oracle(products: int, images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_MOST_THRESHOLDS", 1000)  # blocks shrink for large products
    vectors, labels = sphere(np.random.default_rng(3), products, images, 16, 1.0)
    assert (images > ranks._MOST_PASSES) == (products == 4)  # both ways of counting are covered
    with chunks(50, 77):
        outcome = rank_queries(vectors, labels)
    ranked = oracle.ranked_relevance(vectors, labels.tolist(), tolerance=TIE_TOLERANCE)
    assert_as_oracle(outcome, ranked)
    assert len(set(outcome.rank_of_first_hit.tolist())) > 3 or products == 4


def test_the_peer_agrees() -> None:
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    vectors, labels = sphere(np.random.default_rng(5), 40, 4, 8, 0.8)
    names = ("precision_at_1", "mean_average_precision_at_r")
    peer = AccuracyCalculator(include=names, k="max_bin_count").get_accuracy(
        torch.from_numpy(vectors), torch.from_numpy(labels)
    )
    assert 0.2 < peer["precision_at_1"] < 0.95
    assert recall_at_k(vectors, labels)[1] == pytest.approx(peer["precision_at_1"], abs=1e-6)
    assert map_at_r(vectors, labels) == pytest.approx(peer["mean_average_precision_at_r"], abs=1e-6)


def test_a_collapsed_model_scores_nothing() -> None:
    vectors = np.tile(np.float32([0.6, 0.8]), (8, 1))
    labels = ["a", "a", "b", "b", "c", "c", "d", "d"]
    assert recall_at_k(vectors, labels) == {1: 0.0, 2: 0.0, 4: 0.0, 8: 1.0}
    assert map_at_r(vectors, labels) == 0.0
    assert map_at_r(np.zeros_like(vectors), labels) == 0.0


@pytest.mark.parametrize("gallery_chunk", [7, 8192])
def test_copies_tie_wherever_they_stand_in_a_chunk(gallery_chunk: int) -> None:
    # Every vector also exists under another product: each positive has exact copies of the query beside it.
    rng = np.random.default_rng(11)
    base = rng.standard_normal((50, 257)).astype(np.float32)
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    vectors = np.concatenate([base, base, base, base])
    labels = np.concatenate([np.arange(50)] * 2 + [np.arange(50, 100)] * 2)
    with chunks(33, gallery_chunk):
        outcome = rank_queries(vectors, labels)
    # Two copies of the other product come first, then the own one: a tie counts against us.
    assert (outcome.rank_of_first_hit == 3).all()


@pytest.mark.parametrize("scale", [1e-150, 1e30])
def test_scale_does_not_matter(scale: float) -> None:
    vectors, labels = sphere(np.random.default_rng(13), 20, 4, 6, 1.0)
    expected = rank_queries(vectors.astype(np.float64), labels)
    outcome = rank_queries(vectors.astype(np.float64) * scale, labels)
    assert (outcome.rank_of_first_hit == expected.rank_of_first_hit).all()


@pytest.mark.parametrize("dtype", [torch.int8, torch.float64, torch.bfloat16])
def test_tensors_and_arrays_of_every_number_type_work(dtype: torch.dtype) -> None:
    vectors = torch.tensor([[0, 0], [1, 0], [5, 5], [5, 6]], dtype=dtype, requires_grad=dtype.is_floating_point)
    labels = torch.tensor([7, 7, 9, -1])
    assert map_at_r(vectors, labels) == map_at_r(np.array([[0, 0], [1, 0], [5, 5], [5, 6]]), [7, 7, 9, -1]) == 1.0


GOOD = np.eye(4)
LABELS = ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("vectors", "labels", "options", "says"),
    [
        (np.array([[1.0], [2.0], [np.inf], [1.0]]), LABELS, {}, r"vectors must be finite.*row 2"),
        (np.ones(4), LABELS, {}, r"vectors must be an \(N, D\) array.*shape \(4,\)"),
        (np.ones((0, 3)), [], {}, r"at least one row.*selection"),
        ([[1.0, 0.0], [1.0]], ["a", "a"], {}, r"vectors must be an \(N, D\) array"),
        (None, LABELS, {}, r"vectors must be an \(N, D\) array"),
        (GOOD, ["a"], {}, r"labels must have one entry for each of the 4 rows.*got 1"),
        (GOOD, None, {}, r"labels must have one entry for each of the 4 rows.*got None"),
        (GOOD, np.ones((4, 2), int), {}, "labels must be one name or integer code for each row"),
        (GOOD, [None] * 4, {}, r"two images.*no query"),
        (GOOD, ["a", 1, "b", 2], {}, r"all names or all integer codes.*got 1"),
        (GOOD, LABELS, {"gallery_vectors": GOOD}, r"must come together"),
        (GOOD, LABELS, {"gallery_vectors": np.eye(3), "gallery_labels": [1, 2, 3]}, r"must have 4 columns.*got 3"),
        (GOOD, LABELS, {"gallery_vectors": GOOD, "gallery_labels": ["a"]}, r"gallery_labels must have one entry"),
        (GOOD, LABELS, {"gallery_vectors": GOOD, "gallery_labels": ["c"] * 4}, r"share at least one product"),
        (
            GOOD,
            LABELS,
            {"gallery_vectors": GOOD, "gallery_labels": LABELS, "leave_one_out": True},
            r"gallery_labels must be left out with leave_one_out",
        ),
        (
            GOOD,
            LABELS,
            {"gallery_vectors": GOOD[:3], "leave_one_out": True},
            r"gallery_vectors must have one entry for each of the 4 rows of vectors, got 3",
        ),
    ],
)
def test_bad_input_says_what_and_how_to_fix_it(
    vectors: np.ndarray, labels: list[object], options: dict[str, object], says: str
) -> None:
    with pytest.raises(BadInputError, match=says):
        rank_queries(vectors, labels, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("ks", [(), (1, -2), 1, (1.5,), ("1",)])
def test_bad_ks(ks: Any) -> None:
    with pytest.raises(BadInputError, match="ks must hold at least one K"):
        recall_at_k(GOOD, LABELS, ks)
    with pytest.raises(BadInputError, match="k must be at least 1"):
        rank_queries(GOOD, LABELS).hits(0)
