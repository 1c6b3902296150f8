import json

import numpy as np
import pytest

from univert.core.config import from_plain, to_plain
from univert.core.errors import BadInputError
from univert.metrics.clustering import nmi
from univert.metrics.evaluate import Evaluation, evaluate_vectors
from univert.metrics.ranking import map_at_r, recall_at_k


def catalogue(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three verticals; "lone" has single images only, some rows are unlabelled."""
    rng = np.random.default_rng(seed)
    product = np.repeat(np.arange(24), 3)
    vectors = rng.standard_normal((24, 8))[product] + 0.9 * rng.standard_normal((72, 8))
    products = np.array([f"p{number:02}" for number in product], dtype=object)
    verticals = np.where(product < 12, "cups", "hats").astype(object)
    products[[5, 40]] = None
    vectors = np.concatenate([vectors, rng.standard_normal((3, 8))])
    products = np.concatenate([products, np.array(["x", "y", "z"], dtype=object)])
    verticals = np.concatenate([verticals, np.array(["lone"] * 3, dtype=object)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), products, verticals


def test_every_figure_is_that_of_its_own_gallery() -> None:
    vectors, products, verticals = catalogue()
    evaluation = evaluate_vectors(vectors, products, verticals, resamples=50)
    assert list(evaluation.verticals) == ["cups", "hats", "lone"]
    assert evaluation.verticals["lone"] is None
    galleries = {"cups": verticals == "cups", "hats": verticals == "hats", None: np.ones(75, dtype=bool)}
    for name, rows in galleries.items():
        metrics = evaluation.merged if name is None else evaluation.verticals[name]
        recall = recall_at_k(vectors[rows], products[rows])
        assert {k: interval.value for k, interval in metrics.recall_at.items()} == pytest.approx(recall)
        assert metrics.map_at_r.value == pytest.approx(map_at_r(vectors[rows], products[rows]))
        assert metrics.nmi.value == pytest.approx(nmi(vectors[rows], products[rows]))
        assert (metrics.queries, metrics.products) == ((70, 24) if name is None else (35, 12))
        for interval in [*metrics.recall_at.values(), metrics.map_at_r]:
            assert interval.low <= interval.value <= interval.high
    cups, hats = evaluation.verticals["cups"], evaluation.verticals["hats"]
    assert evaluation.mean_within == {
        name: pytest.approx((cups.figures()[name] + hats.figures()[name]) / 2) for name in cups.figures()
    }
    assert list(evaluation.mean_within)[-2:] == ["map_at_r", "nmi"]


def test_routed_queries_stay_in_their_vertical() -> None:
    vectors, products, verticals = catalogue()
    merged = evaluate_vectors(vectors, products, verticals, resamples=50)
    routed = evaluate_vectors(vectors, products, verticals, routed=True, resamples=50)
    assert routed.verticals == merged.verticals
    assert routed.merged.nmi is None
    assert routed.merged.queries == 70
    assert routed.merged.recall_at[1].value > merged.merged.recall_at[1].value
    assert routed.merged.recall_at[1].value == pytest.approx(routed.mean_within["recall_at_1"])  # equal sizes
    # Each specialist may turn its space as it likes.
    turned = np.where((verticals == "hats")[:, None], -vectors, vectors)
    assert evaluate_vectors(turned, products, verticals, routed=True, resamples=50).merged == (
        evaluate_vectors(vectors, products, verticals, routed=True, resamples=50).merged
    )


def test_it_is_deterministic_and_survives_json() -> None:
    vectors, products, verticals = catalogue()
    evaluation = evaluate_vectors(vectors, products, verticals, resamples=50, seed=3)
    assert evaluation == evaluate_vectors(vectors, list(products), list(verticals), resamples=50, seed=3)
    assert from_plain(Evaluation, json.loads(json.dumps(to_plain(evaluation), allow_nan=False))) == evaluation


def test_queries_against_a_gallery() -> None:
    vectors, products, verticals = catalogue()
    shop = np.arange(75) % 3 == 0
    query, gallery = ~shop, shop
    merged = evaluate_vectors(vectors, products, verticals, queries=query, resamples=50)
    against = {"gallery_vectors": vectors[gallery], "gallery_labels": products[gallery]}
    recall = recall_at_k(vectors[query], products[query], **against)
    assert {k: interval.value for k, interval in merged.merged.recall_at.items()} == pytest.approx(recall)
    assert merged.merged.nmi is None
    assert merged.verticals["lone"] is None
    assert "nmi" not in merged.mean_within
    rows = verticals == "cups"
    within = recall_at_k(
        vectors[query & rows],
        products[query & rows],
        gallery_vectors=vectors[gallery & rows],
        gallery_labels=products[gallery & rows],
    )
    cups = merged.verticals["cups"]
    assert {k: interval.value for k, interval in cups.recall_at.items()} == pytest.approx(within)


def test_one_product_has_figures_but_no_interval() -> None:
    evaluation = evaluate_vectors(np.eye(2), ["a", "a"], ["cups", "cups"])
    assert evaluation.merged.recall_at[1].value == 1.0
    assert evaluation.merged.recall_at[1].low is None
    assert evaluation.merged.nmi is None


def test_a_vertical_that_the_gallery_lacks_has_no_queries() -> None:
    columns = ["a", "b", "a"], ["cups", "hats", "cups"]
    evaluation = evaluate_vectors(np.eye(3), *columns, queries=np.array([True, True, False]))
    assert evaluation.verticals["hats"] is None
    assert evaluation.merged.queries == 1


@pytest.mark.parametrize(
    ("vectors", "products", "verticals", "options", "says"),
    [
        (np.eye(2), ["a", "a"], ["cups"], {}, "verticals must have one entry for each of the 2 rows of vectors, got 1"),
        (np.eye(2), ["a"], ["cups", "cups"], {}, "products must have one entry"),
        (np.eye(2), ["a", "a"], ["cups", None], {}, "verticals must name a vertical for every row, got None in row 1"),
        (np.eye(2), ["a", "a"], ["cups", "hats"], {}, "products must lie in one vertical each, got 'a' in 'cups' and"),
        (np.eye(2), ["a", "b"], ["cups", "cups"], {}, "at least one query in some vertical"),
        (np.eye(2), [None, None], ["cups", "cups"], {}, "at least one query in some vertical"),
        (np.eye(2), ["a", "a"], ["cups", "cups"], {"ks": ()}, "ks must hold"),
        (np.eye(2), ["a", "a"], ["cups", "cups"], {"queries": np.ones(2, bool)}, "at least one query"),
        (np.eye(2), ["a", "a"], ["cups", "cups"], {"queries": np.ones(3, bool)}, "queries must have one entry"),
        (np.eye(2), ["a", "a"], ["cups", "cups"], {"unseen_brands": np.ones(3, bool)}, "unseen_brands must have one"),
        (np.full((2, 2), np.nan), ["a", "a"], ["cups", "cups"], {}, "vectors must be finite"),
    ],
)
def test_bad_input(
    vectors: np.ndarray, products: list[str], verticals: list[str], options: dict[str, object], says: str
) -> None:
    with pytest.raises(BadInputError, match=says):
        evaluate_vectors(vectors, products, verticals, **options)  # type: ignore[arg-type]


def test_queries_of_brands_never_seen_search_the_same_gallery() -> None:
    vectors, products, verticals = catalogue()
    unseen = np.isin(np.arange(75) % 7, (1, 4))
    evaluation = evaluate_vectors(vectors, products, verticals, unseen_brands=unseen, resamples=50)
    assert evaluation.merged == evaluate_vectors(vectors, products, verticals, resamples=50).merged
    nearest = [
        min((row for row in range(75) if row != query), key=lambda row: np.linalg.norm(vectors[row] - vectors[query]))
        for query in range(75)
    ]
    asks = [query for query in np.flatnonzero(unseen) if (products == products[query]).sum() > 1 and products[query]]
    found = evaluation.unseen_brands
    assert found.recall_at[1].value == pytest.approx(np.mean([products[nearest[q]] == products[q] for q in asks]))
    assert found.recall_at[1].low <= found.recall_at[1].value <= found.recall_at[1].high
    assert (found.queries, found.products, found.nmi) == (len(asks), len(set(products[asks])), None)
    assert from_plain(Evaluation, json.loads(json.dumps(to_plain(evaluation)))) == evaluation
    lone = verticals == "lone"  # no query is among them
    assert evaluate_vectors(vectors, products, verticals, unseen_brands=lone, resamples=50).unseen_brands is None
