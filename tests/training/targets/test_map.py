"""The target map against loops over single images."""

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes

from tests.training.shop import SIZE, Shop, clean_targets, fitted_on, raw
from univert.training.targets.alignment import fit_projection, unit
from univert.training.targets.config import UnifyConfig
from univert.training.targets.learning_targets import distortion_of
from univert.training.targets.map import fit_target_map
from univert.training.targets.members import Member


def test_specialists_of_any_size_give_targets_of_the_models_size(shop: Shop) -> None:
    member = shop.mixed
    found = clean_targets(shop, [member])
    assert found.shape == (72, SIZE)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    for number in range(2):
        here = np.flatnonzero(shop.context.images.verticals == number)
        own = raw(shop, member, number)[here]
        train = np.isin(here, fitted_on(shop))
        own = unit(own @ fit_projection(own[train], SIZE))
        np.testing.assert_allclose(found[here] @ found[here].T, own @ own.T, atol=1e-4)


def test_an_ensemble_is_what_a_loop_over_images_gives(shop: Shop) -> None:
    members = [shop.own, shop.joint, shop.wide]
    train, verticals = fitted_on(shop), shop.context.images.verticals
    spaces = []
    for member in members:
        rows = np.zeros((72, SIZE))
        for number in range(2) if member.by_vertical else [None]:
            here = np.ones(72, bool) if number is None else verticals == number
            own = raw(shop, member, number or 0)
            if own.shape[1] > SIZE:
                _, _, axes = np.linalg.svd(own[train[here[train]]], full_matrices=False)
                own = own @ axes[:SIZE].T
            rows[here] = own[here]
        spaces.append(rows)
    reference = spaces[1].copy()
    for member, space in zip(members, spaces, strict=True):
        for number in range(2) if member.by_vertical else [None]:
            here = np.ones(72, bool) if number is None else verticals == number
            fit = train[here[train]]
            rotation, _ = orthogonal_procrustes(unit(space[fit]), reference[fit])
            space[here] = space[here] @ rotation
    beside = np.concatenate([unit(space[train]) for space in spaces], axis=1)
    _, _, axes = np.linalg.svd(beside, full_matrices=False)
    expected = np.zeros((72, SIZE))
    for image in range(72):
        expected[image] = np.concatenate([space[image] for space in spaces]) @ axes[:SIZE].T
    expected = unit(expected)
    found = clean_targets(shop, members)
    expected *= np.sign((expected * found).sum(axis=0))  # the sign of a principal direction is a matter of taste
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_an_image_between_verticals_gets_a_weighted_target(shop: Shop) -> None:
    work = shop.context
    found = fit_target_map(work, [shop.own, shop.joint], UnifyConfig())
    positions, views = fitted_on(shop)[:4], np.array([0, 1, 2, 0])
    weights = np.array([[1, 0], [0.25, 0.75], [0, 0], [0, 1]], np.float32)
    rows = found.rows(work, positions, views, weights)
    for place, (position, view) in enumerate(zip(positions, views, strict=True)):
        one = np.array([position]), np.array([view])
        total = np.zeros(SIZE)
        for member, matrices in zip(found.members, found.matrices, strict=True):
            for number, matrix in enumerate(matrices):
                own = work.features.source.embed(member.models[number].embedder, *one).detach().numpy()[0]
                total += (weights[place, number] if member.by_vertical else 1) * (own @ matrix)
        np.testing.assert_allclose(rows[place], unit(total[None])[0], atol=1e-5)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_energy_that_is_kept_is_that_of_the_leading_directions(shop: Shop, split: str) -> None:
    images = shop.context.images
    measured = images.splits == split

    def kept(*members: Member) -> float:
        return fit_target_map(shop.context, members, UnifyConfig()).energy_kept(shop.context, np.flatnonzero(measured))

    assert kept(shop.own) == pytest.approx(1, abs=1e-3)
    left = total = 0.0
    for number in range(2):
        own, here = raw(shop, shop.wide, number), images.verticals == number
        left += float(((own[here & measured] @ fit_projection(own[here & images.is_train], SIZE)) ** 2).sum())
        total += float((own[here & measured] ** 2).sum())
    assert kept(shop.wide) == pytest.approx(left / total, abs=1e-4)


def test_energy_is_reported_of_images_that_the_map_was_not_fitted_on(shop: Shop) -> None:
    splits = shop.context.images.splits
    fitted = fit_target_map(shop.context, [shop.wide], UnifyConfig())
    train, val = (fitted.energy_kept(shop.context, np.flatnonzero(splits == name)) for name in ("train", "val"))
    assert distortion_of(shop.context, [shop.wide], UnifyConfig()) == {"energy_kept": val}
    assert val != train
