from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import retrieval as oracle
from univert.core.errors import BadInputError
from univert.core.tables import table_text
from univert.evaluation.growth_table import growth_table
from univert.evaluation.outcomes import query_outcomes
from univert.evaluation.versions import GrowthFigures, growth_figures, version_outcomes
from univert.training.growth_verdict import refusal_of


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def shop(seed: int, noise: float = 0.6) -> tuple[np.ndarray, list[str | None], list[str]]:
    """Three verticals of 8 products with 3 images each; every ninth image has lost its product."""
    rng = np.random.default_rng(seed)
    products = np.repeat(np.arange(24), 3)
    vectors = unit(rng.normal(size=(24, 6))[products] + noise * rng.normal(size=(72, 6)))
    names: list[str | None] = [None if row % 9 == 4 else f"p{code}" for row, code in enumerate(products)]
    return vectors, names, [("bags", "hats", "tops")[code // 8] for code in products]


def shaken(vectors: np.ndarray, much: float, seed: int = 9) -> np.ndarray:
    return unit(vectors + much * np.random.default_rng(seed).normal(size=vectors.shape))


def figures(stored: np.ndarray, new: np.ndarray, seed: int = 0, **options: object) -> GrowthFigures:
    _, products, verticals = shop(seed)
    added = np.array(verticals) == "hats"
    return growth_figures(
        "val",
        "hats",
        stored=stored,
        new=new,
        specialist=new[added][:, :4],
        products=products,
        verticals=verticals,
        resamples=200,
        **options,  # type: ignore[arg-type]
    )


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_outcomes_equal_the_oracle(seed: int) -> None:
    _, products, verticals = shop(seed)
    # small whole numbers: distances, and so ties, are exact
    queries, stored = np.random.default_rng(seed).integers(-2, 3, size=(2, 72, 4)).astype(np.float32)
    outcomes = version_outcomes(queries, stored, products, verticals)
    for name, rows in [*outcomes.rows.items(), ("merged", np.arange(72))]:
        outcome = outcomes.merged if name == "merged" else outcomes.verticals[name]
        here = [products[row] for row in rows]
        ranked = oracle.ranked_relevance(queries[rows], here, stored[rows])
        assert outcome is not None
        assert outcome.rows.tolist() == [rows[place] for place in ranked]
        assert outcome.rank_of_first_hit.tolist() == [
            oracle.rank_of_first_hit(one) for one in ranked.values()
        ]


def test_one_version_is_plain_leave_one_out() -> None:
    vectors, products, verticals = shop(1)
    one, other = (
        version_outcomes(vectors, vectors, products, verticals),
        query_outcomes(vectors, products, verticals),
    )
    assert (one.merged.rank_of_first_hit == other.merged.rank_of_first_hit).all()


def test_a_model_that_changed_nothing_lost_nothing() -> None:
    stored, _, _ = shop(0)
    found = figures(stored, stored)
    assert found.losses() == []
    assert found.unmeasured() == []
    assert found.kept.mean_within() == found.reindexed.mean_within() == 0
    assert found.nearness == {"bags": pytest.approx(1), "tops": pytest.approx(1)}
    assert found.old is not None
    old = found.old["recall_at_1"]
    assert old.queries + found.kept.verticals["hats"]["recall_at_1"].queries == 64
    assert found.kept.merged["recall_at_1"].queries == 64
    for same in (found.old_merged, found.beside_new):
        assert same is not None
        for one in same.values():
            assert (one.queries, one.difference) == (old.queries, 0)


def test_a_rotated_model_loses_all_and_indexing_anew_would_give_it_back() -> None:
    stored, _, _ = shop(0)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0].astype(np.float32)
    found = figures(stored, stored @ rotation)
    lost = {loss.gallery: loss for loss in found.losses()}
    assert set(lost) == {
        # in bags too few products changed to be sure
        *("tops", "the old verticals, each within itself", "the old verticals merged"),
        *("the old verticals' queries among all images", "all verticals merged"),
    }
    assert all(loss.certain for loss in lost.values())
    for loss in lost.values():
        assert loss.kept.second < loss.kept.first
        if loss.reindexed is not None and loss.reindexed.metric == loss.kept.metric:
            assert loss.kept.second == loss.reindexed.first < loss.reindexed.second == loss.kept.first
    assert found.kept.verticals["hats"]["recall_at_1"].difference == 0
    for name in ("bags", "tops"):
        kept, anew = found.kept.verticals[name]["recall_at_1"], found.reindexed.verticals[name]["recall_at_1"]
        assert kept.second < kept.first == anew.second


def test_with_too_few_products_to_tell_any_loss_counts() -> None:
    vectors, products, verticals = shop(0)
    few = [None if vertical == "bags" and row >= 9 else product
           for row, (product, vertical) in enumerate(zip(products, verticals, strict=True))]  # fmt: skip
    new = vectors.copy()
    new[:9] = -vectors[:9]  # the queries of three products
    settings = {"products": few, "verticals": verticals, "resamples": 50}
    found = growth_figures(
        *("val", "hats"), stored=vectors, new=new, specialist=new[24:48], **settings, tolerance=0.01
    )  # fmt: skip
    losses = {loss.gallery: loss for loss in found.losses()}
    assert [name for name, loss in losses.items() if not loss.certain] == ["bags"]
    kept = losses["bags"].kept
    assert (kept.verdict, kept.products, kept.least_p_value) == ("same", 3, 0.25)
    assert kept.difference < -0.01
    refusal = refusal_of(found)
    assert refusal is not None
    assert "bags lost " in refusal
    assert "on 3 products, too few to tell from chance: label more" in refusal
    with_all = growth_figures(
        *("val", "hats"),
        **{"stored": vectors, "new": new, "specialist": new[24:48], **settings, "products": products},
    )
    assert with_all.losses() == []  # three of eight products may be chance


def test_a_significant_loss_of_either_metric_counts() -> None:
    stored, _, _ = shop(0)
    found = figures(stored, shaken(stored, 0.35))
    assert {loss.kept.metric for loss in found.losses()} <= {"recall_at_1", "map_at_r"}
    for loss in found.losses():
        assert loss.kept.verdict == "worse"
    by_map = [loss for loss in found.losses() if loss.kept.metric == "map_at_r"]
    assert by_map, "Recall@1 of these stays within chance, MAP@R does not"


def test_as_json_and_back_and_as_a_table() -> None:
    stored, _, _ = shop(0)
    found = figures(stored, shaken(stored, 0.2))
    assert GrowthFigures.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    text = table_text(growth_table(found))
    for words in (
        "growing by hats, val split",
        "bags",
        "tops",
        "anew",
        "hats, specialist before",
    ):
        assert words in text


def test_verticals_without_queries_are_named() -> None:
    vectors, products, verticals = shop(0)
    without = [
        None if vertical != "bags" else product for product, vertical in zip(products, verticals, strict=True)
    ]
    found = growth_figures(
        *("test", "hats"),
        stored=vectors,
        new=vectors,
        specialist=vectors[24:48],
        products=without,
        verticals=verticals,
        resamples=50,
    )
    assert found.unmeasured() == ["tops", "hats"]
    assert (found.specialist, found.new_merged) == (None, None)
    assert "no queries" in table_text(growth_table(found))
    assert GrowthFigures.from_dict(found.to_dict()) == found
    with pytest.raises(BadInputError, match="at least one query"):
        version_outcomes(vectors, vectors, [None] * 72, verticals)


@pytest.mark.parametrize(
    ("stored", "message"),
    [(np.eye(6), "one entry for each of the 72"), (np.ones((72, 3)), "must have 6 columns")],
)
def test_vectors_that_do_not_fit(stored: np.ndarray, message: str) -> None:
    vectors, products, verticals = shop(0)
    with pytest.raises(BadInputError, match=message):
        version_outcomes(vectors, stored, products, verticals)
