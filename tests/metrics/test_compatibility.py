import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import retrieval as oracle
from tests.search.conftest import unit
from tests.tables import table_text
from univert.core.config import from_plain, to_plain
from univert.metrics.compatibility import GrowthFigures, growth_figures
from univert.metrics.per_query import query_outcomes
from univert.report.console import growth_table
from univert.training.grow.checks import refusal_of


def shop(seed: int, noise: float = 0.6) -> tuple[np.ndarray, list[str | None], list[str]]:
    """Three verticals of 8 products with 3 images each; every ninth image has lost its product."""
    rng = np.random.default_rng(seed)
    products = np.repeat(np.arange(24), 3)
    vectors = unit(rng.normal(size=(24, 6))[products] + noise * rng.normal(size=(72, 6)))
    names: list[str | None] = [None if row % 9 == 4 else f"p{code}" for row, code in enumerate(products)]
    return vectors, names, [("bags", "hats", "tops")[code // 8] for code in products]


def shaken(vectors: np.ndarray, much: float, seed: int = 9) -> np.ndarray:
    return unit(vectors + much * np.random.default_rng(seed).normal(size=vectors.shape))


def figures(stored: np.ndarray, new: np.ndarray) -> GrowthFigures:
    _, products, verticals = shop(0)
    added = np.array(verticals) == "hats"
    return growth_figures(
        *("val", "hats"), stored=stored, new=new, specialist=new[added][:, :4], products=products, verticals=verticals,
        resamples=200,
    )  # fmt: skip


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_outcomes_equal_the_oracle(seed: int) -> None:
    _, products, verticals = shop(seed)
    # small whole numbers: distances, and so ties, are exact
    queries, stored = np.random.default_rng(seed).integers(-2, 3, size=(2, 72, 4)).astype(np.float32)
    outcomes = query_outcomes(queries, products, verticals, stored=stored)
    for name, rows in [*outcomes.rows.items(), ("merged", np.arange(72))]:
        outcome = outcomes.merged if name == "merged" else outcomes.verticals[name]
        here = [products[row] for row in rows]
        ranked = oracle.ranked_relevance(queries[rows], here, stored[rows])
        assert outcome.rows.tolist() == [rows[place] for place in ranked]
        assert outcome.rank_of_first_hit.tolist() == [oracle.rank_of_first_hit(one) for one in ranked.values()]


def test_a_model_that_changed_nothing_lost_nothing() -> None:
    stored, _, _ = shop(0)
    found = figures(stored, stored)
    assert found.setbacks(0.05) == []
    assert found.unmeasured() == []
    assert found.kept.mean_within() == found.reindexed.mean_within() == 0
    assert found.nearness == {"bags": pytest.approx(1), "tops": pytest.approx(1)}
    old = found.old["recall_at_1"]
    assert old.queries + found.kept.verticals["hats"]["recall_at_1"].queries == 64
    assert found.kept.merged["recall_at_1"].queries == 64
    for same in (found.old_merged, found.beside_new):
        for one in same.values():
            assert (one.queries, one.difference) == (old.queries, 0)


def test_a_rotated_model_loses_all_and_indexing_anew_would_give_it_back() -> None:
    stored, _, _ = shop(0)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0].astype(np.float32)
    found = figures(stored, stored @ rotation)
    lost = found.setbacks(1.0)  # in bags too few products changed to be sure of Recall@1
    assert {setback.gallery for setback in lost if setback.kept.metric == "recall_at_1"} == {
        *("tops", "the old verticals, each within itself", "the old verticals merged"),
        *("the old verticals' queries among all images", "all verticals merged"),
    }
    assert all(setback.certain for setback in lost)
    for setback in lost:
        assert setback.kept.second < setback.kept.first
        if setback.reindexed is not None:
            assert setback.kept.second == setback.reindexed.first
            assert setback.reindexed.second == pytest.approx(setback.kept.first)
    uncertain = [setback for setback in found.setbacks(0.05) if not setback.certain]
    assert {setback.gallery for setback in uncertain} == {"bags"}
    assert found.kept.verticals["hats"]["recall_at_1"].difference == 0
    for name in ("bags", "tops"):
        kept, anew = found.kept.verticals[name]["recall_at_1"], found.reindexed.verticals[name]["recall_at_1"]
        assert kept.second < kept.first == anew.second


@pytest.mark.parametrize(("lost", "refused"), [(0, False), (1, True)])
def test_a_large_loss_counts_even_where_so_few_products_prove_nothing(lost: int, refused: bool) -> None:
    """Ten products of a vertical among two; some of them are lost altogether."""
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(20), 3)
    stored = unit(rng.normal(size=(20, 12))[codes] + 0.1 * rng.normal(size=(60, 12)))
    new = stored.copy()
    new[: 3 * lost] *= -1
    verticals = ["bags" if code < 10 else "hats" for code in codes]
    found = growth_figures(
        *("val", "hats"), stored=stored, new=new, specialist=new[30:], products=[f"p{code}" for code in codes],
        verticals=verticals, resamples=50,
    )  # fmt: skip
    kept = found.kept.verticals["bags"]["recall_at_1"]
    assert (kept.verdict, kept.difference) == ("unclear" if lost else "same", pytest.approx(-lost / 10))
    refusal = refusal_of(found, limit=0.05)
    assert (refusal is not None) == refused
    if refusal is not None:
        assert f"bags lost {10 * lost:.1f} points of R@1" in refusal
        assert "on 10 products: too much, though chance is not ruled out" in refusal
    assert not any(setback.kept.metric == "recall_at_1" for setback in found.setbacks(0.99))


def test_as_json_and_back_and_as_a_table() -> None:
    stored, _, _ = shop(0)
    found = figures(stored, shaken(stored, 0.2))
    assert from_plain(GrowthFigures, json.loads(json.dumps(to_plain(found)))) == found
    text = table_text(growth_table(found))
    for words in ("growing by hats, val split", "bags", "tops", "anew", "hats, specialist before"):
        assert words in text


def test_verticals_without_queries_are_named() -> None:
    vectors, products, verticals = shop(0)
    without = [None if vertical != "bags" else product for product, vertical in zip(products, verticals, strict=True)]
    found = growth_figures(
        *("test", "hats"), stored=vectors, new=vectors, specialist=vectors[24:48], products=without,
        verticals=verticals, resamples=50,
    )  # fmt: skip
    assert found.unmeasured() == ["tops", "hats"]
    assert (found.specialist, found.new_merged) == (None, None)
    assert "no queries" in table_text(growth_table(found))
