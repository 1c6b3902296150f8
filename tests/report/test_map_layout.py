import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.search.conftest import unit
from univert.report.map_layout import sample_for_map, tsne_map


def clusters(*, count=3, each=20, size=8, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count, size)) * 3
    return unit(np.repeat(centres, each, axis=0) + 0.3 * rng.normal(size=(count * each, size)))


catalogues = st.lists(
    st.tuples(st.sampled_from("abcd"), st.one_of(st.none(), st.integers(0, 5))), min_size=1, max_size=60
)


@settings(max_examples=40, deadline=None)
@given(rows=catalogues, per_vertical=st.integers(1, 20), total=st.integers(4, 40), seed=st.integers(0, 3))
def test_sample_keeps_its_limits_and_wastes_nothing(rows, per_vertical, total, seed):
    verticals = [vertical for vertical, _ in rows]
    products = [None if number is None else f"{vertical}{number}" for vertical, number in rows]
    chosen = sample_for_map(verticals, products, per_vertical=per_vertical, total=total, seed=seed)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    sizes = {name: min(verticals.count(name), per_vertical) for name in set(verticals)}
    drawn = {name: [verticals[row] for row in chosen].count(name) for name in sizes}
    assert all(drawn[name] <= sizes[name] for name in sizes)
    assert len(chosen) == min(total, sum(sizes.values()))
    # Fair: whoever is cut short has as many as anybody else, but for the rounding.
    cut = [drawn[name] for name in sizes if drawn[name] < sizes[name]]
    assert not cut or max(drawn.values()) - min(cut) <= 1
    again = sample_for_map(verticals, products, per_vertical=per_vertical, total=total, seed=seed)
    np.testing.assert_array_equal(chosen, again)
    # Whole products: at most one in each vertical is cut.
    for name in sizes:
        own = {product for vertical, product in zip(verticals, products, strict=True) if vertical == name}
        kept = {product: sum(products[row] == product for row in chosen) for product in own - {None}}
        assert sum(0 < number < products.count(product) for product, number in kept.items()) <= 1


def test_tsne_keeps_clusters_together_and_is_reproducible():
    vectors = clusters()
    points = tsne_map(vectors, seed=3)
    assert points.shape == (60, 2)
    assert points.dtype == np.float32
    assert np.abs(points).max() == pytest.approx(1.0)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1) + 9 * np.eye(60)
    assert (distance.argmin(axis=1) // 20 == np.arange(60) // 20).mean() > 0.95
    np.testing.assert_array_equal(points, tsne_map(vectors, seed=3))


@pytest.mark.parametrize("count", [6, 60])
def test_a_map_that_starts_from_another_lies_like_it(count):
    vectors = clusters(each=count // 3)
    first = tsne_map(vectors, seed=0)
    quarter = np.array([[0, 1], [-1, 0]], np.float32)  # a turn and a mirror, which t-SNE itself would not prefer
    for start in (first, first @ quarter, first * np.array([1, -1], np.float32)):
        second = tsne_map(vectors, start=start, seed=1)
        assert np.abs(second).max() == pytest.approx(1.0)
        middles = [points.reshape(3, -1, 2).mean(axis=1) for points in (start, second)]
        assert np.linalg.norm(middles[0] - middles[1], axis=1).max() < 0.35
    np.testing.assert_array_equal(second, tsne_map(vectors, start=start, seed=1))


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_a_few_vectors_are_laid_out_without_tsne(count):
    points = tsne_map(unit(np.random.default_rng(count).normal(size=(count, 5))))
    assert points.shape == (count, 2)
    assert np.isfinite(points).all()
    if count > 1:
        assert np.abs(points).max() == pytest.approx(1.0)


def test_degenerate_vectors_are_no_obstacle():
    np.testing.assert_array_equal(tsne_map(np.ones((40, 4), np.float32)), np.zeros((40, 2)))
    line = np.linspace(-1, 1, 30, dtype=np.float32)[:, None]
    assert np.isfinite(tsne_map(np.repeat(line, 3, axis=1), start=np.zeros((30, 2), np.float32))).all()
    assert np.isfinite(tsne_map(line[:6])).all()
