import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats

from univert.core.config import from_plain, to_plain
from univert.core.errors import BadInputError
from univert.metrics.compare import UNSEEN_BRANDS, Comparison, compare_vectors, holm, sign_flip_p_value

Rng = np.random.Generator


def drawn(rng: Rng, noise: float, *, products: int = 40, images: int = 4) -> np.ndarray:
    """Unit vectors around a centre for each product; the centres are always the same."""
    centres = np.random.default_rng(7).normal(size=(products, 8))
    vectors = np.repeat(centres, images, axis=0) + noise * rng.normal(size=(products * images, 8))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def labels(products: int = 40, images: int = 4) -> tuple[np.ndarray, np.ndarray]:
    codes = np.repeat(np.arange(products), images)
    return codes, np.where(codes < products // 2, "bags", "hats")


def test_a_clearly_better_model_is_better_everywhere_and_the_reverse_is_worse() -> None:
    rng = np.random.default_rng(0)
    poor, good = drawn(rng, 1.2), drawn(rng, 0.6)
    forth, back = (compare_vectors(*pair, *labels()) for pair in ((poor, good), (good, poor)))
    for name, figures in {**forth.verticals, "merged": forth.merged}.items():
        mirrored = back.merged if name == "merged" else back.verticals[name]
        for metric, difference in figures.items():
            assert difference.verdict == "better"
            assert mirrored[metric].verdict == "worse"
            assert difference.difference == pytest.approx(difference.second - difference.first)
            assert 0 < difference.low <= difference.difference <= difference.high
            assert mirrored[metric].difference == pytest.approx(-difference.difference)
    assert from_plain(Comparison, json.loads(json.dumps(to_plain(forth)))) == forth
    assert back.worse() == ["bags", "hats", "merged"]
    assert forth.worse() == []
    assert forth.mean_within() == pytest.approx(
        np.mean([figures["recall_at_1"].difference for figures in forth.verticals.values()])
    )


def test_a_model_is_the_same_as_itself_in_any_rotation() -> None:
    rng = np.random.default_rng(1)
    vectors = drawn(rng, 1.0)
    rotation, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    comparison = compare_vectors(vectors, vectors @ rotation, *labels())
    for figures in (comparison.merged, *comparison.verticals.values()):
        difference = figures["recall_at_1"]
        assert (difference.difference, difference.low, difference.high) == (0, 0, 0)
        assert difference.p_value == difference.p_adjusted == 1
        assert difference.verdict == "same"


def test_false_alarms_are_as_rare_as_promised() -> None:
    alarms = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        comparison = compare_vectors(drawn(rng, 1.0), drawn(rng, 1.0), *labels(), tolerance=0.0, resamples=400)
        verdicts = [each["recall_at_1"].verdict for each in comparison.verticals.values()]
        alarms.append(bool({"better", "worse"} & set(verdicts)))
    assert np.mean(alarms) <= 0.15  # 5% wanted; 40 trials of 5% exceed 6 alarms three times in a thousand


def test_a_difference_within_the_tolerance_is_the_same_however_sure() -> None:
    rng = np.random.default_rng(3)
    comparison = compare_vectors(drawn(rng, 0.6), drawn(rng, 1.2), *labels(), tolerance=0.9)
    assert comparison.merged["recall_at_1"].p_adjusted < 0.05
    assert comparison.worse() == []


@pytest.mark.parametrize("verticals", [1, 8])
@pytest.mark.parametrize("seed", range(6))
def test_a_verdict_never_contradicts_the_interval_beside_it(seed: int, verticals: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(40), 4)
    vectors = drawn(rng, 1.0), drawn(rng, 0.7)
    comparison = compare_vectors(*vectors, codes, [f"v{code % verticals}" for code in codes], resamples=400)
    for figures in comparison.galleries.values():
        for one in figures.values():
            within = comparison.tolerance
            assert (one.verdict == "better") <= (one.low > 0)
            assert (one.verdict == "worse") <= (one.high < 0)
            assert (one.verdict == "same") == (-within <= one.low <= one.high <= within)


def test_intervals_are_wider_where_several_verticals_are_looked_at() -> None:
    rng = np.random.default_rng(4)
    poor, good = drawn(rng, 1.0), drawn(rng, 0.8)
    codes, names = labels()
    one = compare_vectors(poor[:80], good[:80], codes[:80], names[:80]).verticals["bags"]["recall_at_1"]
    of_two = compare_vectors(poor, good, codes, names).verticals["bags"]["recall_at_1"]
    assert (one.first, one.second) == (of_two.first, of_two.second)
    assert of_two.high - of_two.low > one.high - one.low


def test_two_products_are_never_enough() -> None:
    codes, _ = labels(2)
    good = np.eye(2)[codes]
    comparison = compare_vectors(good, -np.eye(2)[(np.arange(8) // 2) % 2], codes, ["bags"] * 8)
    assert comparison.merged["recall_at_1"].difference < 0
    assert comparison.merged["recall_at_1"].verdict == "unclear"


@pytest.mark.parametrize(("products", "near"), [(9, 1e-12), (40, 0.02)])
def test_scipy_agrees(products: int, near: float) -> None:
    """Exactly where all signs are tried, nearly where they are drawn."""
    changes = np.random.default_rng(1).normal(0.25, 1, size=3 * products)
    codes = np.arange(3 * products) // 3
    sums = changes.reshape(-1, 3).sum(axis=1)
    peer = scipy.stats.permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=20_000, rng=0)
    assert sign_flip_p_value(changes, codes, resamples=20_000, seed=0) == pytest.approx(peer.pvalue, abs=near)


def test_specialists_are_routed() -> None:
    rng = np.random.default_rng(5)
    codes, verticals = labels()
    vectors = drawn(rng, 0.5)
    confused = vectors.copy()
    confused[verticals == "hats"] = confused[verticals == "bags"]  # two spaces that lie on each other
    plain = compare_vectors(vectors, confused, codes, verticals).merged["recall_at_1"]
    routed = compare_vectors(vectors, confused, codes, verticals, second_routed=True).merged["recall_at_1"]
    assert plain.verdict == "worse"
    assert routed.second > plain.second


@hypothesis.given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_is_the_step_down_of_its_definition(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for place, value in enumerate(p_values):
        smaller = [other for other in p_values if other <= value]
        steps = [min(1.0, sum(third >= other for third in p_values) * other) for other in smaller]
        assert adjusted[place] == pytest.approx(max(steps))
        assert adjusted[place] >= value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tolerance": -0.1}, "tolerance"),
        ({"second": np.ones((3, 2))}, "second"),
        ({"products": [None] * 160}, "query"),
        ({"verticals": [None] * 160}, "vertical"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], message: str) -> None:
    vectors = drawn(np.random.default_rng(9), 1.0)
    codes, verticals = labels()
    arguments = {"first": vectors, "second": vectors, "products": codes, "verticals": verticals, **change}
    with pytest.raises(BadInputError, match=message):
        compare_vectors(**arguments)  # type: ignore[arg-type]


def test_a_loss_for_brands_never_seen_alone_is_a_loss() -> None:
    """What is lost there may be gained elsewhere."""
    rng = np.random.default_rng(6)
    codes, verticals = labels()
    unseen = codes % 5 == 0
    poor, good = drawn(rng, 2.0), drawn(rng, 0.3)
    second = np.where(unseen[:, None], poor, good)
    first = np.where(unseen[:, None], good, poor)
    found = compare_vectors(first, second, codes, verticals, unseen_brands=unseen)
    assert found.merged["map_at_r"].verdict == "better"
    assert found.worse_in_any() == [UNSEEN_BRANDS]
    assert list(found.galleries) == ["bags", "hats", UNSEEN_BRANDS, "merged"]
    assert (found.unseen_brands["map_at_r"].queries, found.unseen_brands["map_at_r"].products) == (32, 8)
    plain = compare_vectors(first, second, codes, verticals)
    assert (plain.merged, plain.verticals, plain.unseen_brands) == (found.merged, found.verticals, None)
    assert from_plain(Comparison, json.loads(json.dumps(to_plain(found)))) == found
