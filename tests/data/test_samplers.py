from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from univert.core.errors import BadInputError
from univert.data.samplers import PKSampler, Sampler, StrongNegativeSampler, UniformSampler
from univert.data.strong_negatives import StrongNegatives


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


def test_products_come_when_it_is_their_turn() -> None:
    turns = np.array([5.0, 1, 4, 2, 3])
    sampler = PKSampler(np.repeat(np.arange(5), 3), products_per_batch=2, images_per_product=2, turns=lambda: turns)
    assert (sampler.batch(0) // 3).tolist() == [1, 1, 3, 3]
    turns[1] = 6
    assert (sampler.batch(1) // 3).tolist() == [3, 3, 4, 4]


def test_uniform_sampler_shows_each_image_once_an_epoch() -> None:
    positions = np.array([3, 5, 7, 11, 13, 17])
    sampler = UniformSampler(positions, batch_size=2)
    for epoch in range(2):
        seen = np.concatenate([sampler.batch(epoch * 3 + turn) for turn in range(3)])
        assert sorted(seen) == list(positions)
    assert UniformSampler(positions, batch_size=100).batch_size == 6
    with pytest.raises(BadInputError, match="at least 1 image"):
        UniformSampler(positions[:0])


def strong(rows: list[tuple[int, int, list[int]]], protected: list[tuple[int, int]] | None = None) -> StrongNegatives:
    width = max((len(negatives) for _, _, negatives in rows), default=1)
    return StrongNegatives(
        anchors=np.array([a for a, _, _ in rows], np.int64),
        positives=np.array([p for _, p, _ in rows], np.int64),
        negatives=np.array([n + [-1] * (width - len(n)) for _, _, n in rows], np.int64).reshape(-1, width),
        protected=np.array(protected or [], np.int64).reshape(-1, 2),
    )


@given(
    counts=st.lists(st.integers(1, 5), min_size=3, max_size=20),
    p=st.integers(2, 8),
    k=st.integers(2, 4),
    brought=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_strong_batches_hold_p_products_of_k_images(counts: list[int], p: int, k: int, brought: int, seed: int) -> None:
    products = np.append(codes(*counts, 2), [-1, -1])
    rng = np.random.default_rng(seed)
    mined = [
        (int(a), int(b), rng.permutation(np.flatnonzero((products >= 0) & (products != products[a])))[:3].tolist())
        for a in range(len(products) - 2)
        for b in range(len(products) - 2)
        if a != b and products[a] == products[b] and rng.random() < 0.6
    ]
    sampler = StrongNegativeSampler(
        products, strong(mined), batch_size=p * k + 1, images_per_product=k, negatives_per_anchor=brought, seed=seed
    )
    batch = sampler.batch(2)
    groups = batch.reshape(-1, k)
    assert len(batch) == sampler.batch_size == min(p, len(counts) + 1) * k
    assert len(set(products[groups[:, 0]])) == len(groups), "no product twice"
    for group in groups:
        assert (products[group] == products[group[0]]).all()
        assert products[group[0]] >= 0
        assert len(set(group)) == min(k, (products == products[group[0]]).sum())


def test_strong_negatives_meet_their_anchor() -> None:
    products = codes(*[3] * 40)
    mined = strong([(3 * product, 3 * product + 2, [(3 * product + 4) % 120]) for product in range(0, 40, 2)])
    sampler = StrongNegativeSampler(products, mined, batch_size=16, images_per_product=2, negatives_per_anchor=1)
    assert sampler.steps_per_epoch == 10
    met = set()
    for step in range(10):
        groups = sampler.batch(step).reshape(-1, 2)
        images = set(groups.ravel().tolist())
        visited = {int(products[a]) for a, _ in groups} & set(range(0, 40, 2))
        for product in visited:
            if {3 * product, 3 * product + 2} <= images and (3 * product + 4) % 120 in images:
                met.add(product)
    assert len(met) >= 15, "nearly every anchor meets its negative within an epoch"


def test_products_that_share_a_picture_do_not_meet() -> None:
    products = codes(*[2] * 20)
    mined = strong([(0, 1, [2])], protected=[(0, 4), (7, 9), (1, 10)])
    sampler = StrongNegativeSampler(products, mined, batch_size=16, images_per_product=2, negatives_per_anchor=3)
    for step in range(60):
        present = set(products[sampler.batch(step)].tolist())
        for pair in ({0, 2}, {3, 4}, {0, 5}):
            assert not pair <= present
    # in a catalogue of three products there is no way around it
    small = StrongNegativeSampler(
        codes(2, 2, 2), strong([], [(0, 2)]), batch_size=6, images_per_product=2, negatives_per_anchor=1
    )
    assert len(small.batch(0)) == 6


def pk(products: np.ndarray, **settings: int) -> PKSampler:
    return PKSampler(products, **settings)


def of_strong(products: np.ndarray, **settings: int) -> StrongNegativeSampler:
    return StrongNegativeSampler(products, strong([]), **settings)


@pytest.mark.parametrize(
    ("sampler", "products", "settings", "message"),
    [
        (pk, codes(3), {}, "at least 2 products"),
        (pk, codes(1, 1, 1), {"min_images": 2}, "2 or more images"),
        (pk, codes(2, 2), {"products_per_batch": 1}, "products_per_batch"),
        (of_strong, codes(3), {}, "at least 2 products"),
        (of_strong, codes(1, 1, 1), {}, "0 with 2 images"),
        (of_strong, codes(2, 2), {"images_per_product": 1}, "images_per_product"),
        (of_strong, codes(2, 2), {"batch_size": 6}, "batch_size"),
    ],
)
def test_nothing_to_sample_is_an_error(
    sampler: Callable[..., object], products: np.ndarray, settings: dict[str, int], message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        sampler(products, **settings)


@pytest.mark.parametrize("sampler", [pk, of_strong])
def test_any_step_can_be_asked_for_in_any_order(sampler: Callable[..., Sampler]) -> None:
    products = codes(3, 4, 5, 6, *[2] * 30)
    forward, backward = sampler(products, seed=5), sampler(products, seed=5)
    first = {step: forward.batch(step) for step in range(7)}
    second = {step: backward.batch(step) for step in reversed(range(7))}
    for step, batch in first.items():
        np.testing.assert_array_equal(batch, second[step])
    assert not np.array_equal(first[0], sampler(products, seed=6).batch(0))


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_batches_are_those_of_a_data_loader(kind: Callable[[list[int]], object]) -> None:
    """Pass by pass; a sampler that goes on at a later epoch gives the batches of that one."""
    products = codes(3, 2, 4, 1, 2).tolist()
    sampler = PKSampler(kind(products), products_per_batch=2, images_per_product=3, seed=1)
    loader = torch.utils.data.DataLoader(range(len(products)), batch_sampler=sampler)
    assert len(loader) == sampler.steps_per_epoch == 2
    passes = [batch.tolist() for _ in range(3) for batch in loader]
    assert passes == [sampler.batch(step).tolist() for step in range(6)]
    later = PKSampler(products, products_per_batch=2, images_per_product=3, seed=1)
    later.epoch = 2
    assert list(later) == passes[4:]


@pytest.mark.parametrize("products", [["cup", "hat"], [0.0, 1.0], [[0, 1]]])
def test_products_are_whole_numbers(products: list[object]) -> None:
    with pytest.raises(BadInputError, match="products must be a vector of whole numbers"):
        PKSampler(products)  # type: ignore[arg-type]
