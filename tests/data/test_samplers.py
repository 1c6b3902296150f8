from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from univert.core.errors import BadInputError
from univert.data.samplers import PKSampler, UniformSampler


def codes(*images_per_product: int) -> np.ndarray:
    return np.repeat(np.arange(len(images_per_product)), images_per_product)


@given(
    counts=st.lists(st.integers(1, 6), min_size=2, max_size=20),
    p=st.integers(2, 8),
    k=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_batches_hold_p_products_of_k_images(counts: list[int], p: int, k: int, seed: int) -> None:
    products = codes(*counts)
    sampler = PKSampler(products, products_per_batch=p, images_per_product=k, seed=seed)
    batch = sampler.batch(3)
    assert len(batch) == sampler.batch_size == min(p, len(counts)) * k
    for group in batch.reshape(-1, k):
        product = products[group[0]]
        assert (products[group] == product).all()
        assert len(set(group)) == min(k, counts[product]), "no image twice while there are others"


def test_an_epoch_visits_every_product_once() -> None:
    products = codes(*[2] * 12)
    sampler = PKSampler(products, products_per_batch=4, images_per_product=2)
    assert sampler.steps_per_epoch == 3
    for epoch in range(2):
        steps = range(epoch * 3, epoch * 3 + 3)
        seen = np.concatenate([products[sampler.batch(step)][::2] for step in steps])
        assert sorted(seen) == list(range(12))


def test_any_step_can_be_asked_for_in_any_order() -> None:
    products = codes(3, 4, 5, 6)
    forward, backward = PKSampler(products, seed=5), PKSampler(products, seed=5)
    steps = list(range(7))
    first = {step: forward.batch(step) for step in steps}
    second = {step: backward.batch(step) for step in reversed(steps)}
    for step in steps:
        np.testing.assert_array_equal(first[step], second[step])
    assert not np.array_equal(first[0], PKSampler(products, seed=6).batch(0))


def test_unlabelled_and_rare_products_take_no_part() -> None:
    products = np.array([-1, 0, 0, 1, 2, 2, -1])
    sampler = PKSampler(products, min_images=2)
    seen = {int(position) for step in range(20) for position in sampler.batch(step)}
    assert seen == {1, 2, 4, 5}


@pytest.mark.parametrize(
    ("products", "settings", "message"),
    [
        (codes(3), {}, "at least 2 products"),
        (codes(1, 1, 1), {"min_images": 2}, "2 or more images"),
        (np.array([-1, -1]), {}, "at least 2 products"),
        (codes(2, 2), {"products_per_batch": 1}, "products_per_batch"),
        (codes(2, 2), {"images_per_product": 0}, "images_per_product"),
    ],
)
def test_nothing_to_sample_is_an_error(products: np.ndarray, settings: dict[str, int], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        PKSampler(products, **settings)


def test_uniform_sampler_shows_each_image_once_an_epoch() -> None:
    positions = np.array([3, 5, 7, 11, 13, 17])
    sampler = UniformSampler(positions, batch_size=2)
    for epoch in range(2):
        seen = np.concatenate([sampler.batch(epoch * 3 + turn) for turn in range(3)])
        assert sorted(seen) == list(positions)
    assert UniformSampler(positions, batch_size=100).batch_size == 6
    with pytest.raises(BadInputError, match="at least 1 image"):
        UniformSampler(positions[:0])
