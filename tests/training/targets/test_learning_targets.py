"""Learning targets, against loops over single images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes

from tests.training.shop import Shop
from univert.core.errors import BadInputError
from univert.core.run import Run
from univert.training.run_context import RunContext
from univert.training.targets import map as module
from univert.training.targets.config import TargetsConfig, UnifyConfig
from univert.training.targets.learning_targets import distortion_of, learning_targets, vertical_weights
from univert.training.targets.map import fit_target_map
from univert.training.targets.members import Member
from univert.training.targets.placement import simplex_size
from univert.training.targets.projection import fit_projection, unit

SIZE = 8


def clean(shop: Shop, members: Sequence[Member], **changes: object) -> np.ndarray:
    config = TargetsConfig(**changes)  # type: ignore[arg-type]
    return learning_targets(shop.context, members, config).clean(shop.everything).astype(np.float64)


def raw(shop: Shop, member: Member, vertical: int) -> np.ndarray:
    """A member's own embeddings of all images, as if all were of one vertical."""
    model = member.models[vertical if member.routed else 0]
    return shop.context.features.source.embed_all(model.embedder, shop.everything).astype(np.float64)


def fitted_on(shop: Shop) -> np.ndarray:
    return np.flatnonzero(shop.context.images.is_train)


def test_plain_targets_are_the_specialists_own_embeddings_of_every_view(shop: Shop) -> None:
    work = shop.context
    found = learning_targets(work, [shop.own], TargetsConfig(align=False))
    positions = fitted_on(shop)
    for view in range(work.recipe.data.views + 1):
        views = np.full(len(positions), view)
        rows = found.gather(positions, views)
        for name, trained in zip(work.images.vertical_names, shop.own.models, strict=True):
            here = work.images.of_vertical(name)[positions]
            expected = work.features.source.embed(trained.embedder, positions[here], views[here])
            np.testing.assert_allclose(rows[here], expected.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("projection", ["pca", "random"])
@pytest.mark.parametrize("kind", ["mixed", "wide"])
def test_specialists_of_any_size_give_targets_of_the_models_size(shop: Shop, kind: str, projection: str) -> None:
    member: Member = getattr(shop, kind)
    found = clean(shop, [member], projection=projection)
    assert found.shape == (72, SIZE)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    for number in range(2):
        here = np.flatnonzero(shop.context.images.verticals == number)
        own = raw(shop, member, number)[here]
        if own.shape[1] > SIZE:
            train = np.isin(here, fitted_on(shop))
            own = unit(own @ fit_projection(own[train], SIZE, kind=projection, seed=module.FIT_SEED))  # type: ignore[arg-type]
        np.testing.assert_allclose(found[here] @ found[here].T, own @ own.T, atol=1e-4)


def test_the_distortion_is_that_of_the_targets(shop: Shop) -> None:
    def distortion(member: Member, **changes: object) -> dict[str, float]:
        return distortion_of(shop.context, [member], TargetsConfig(**changes))  # type: ignore[arg-type]

    lossless = distortion(shop.own)
    assert lossless == pytest.approx({"energy_kept": 1, "distance_error": 0, "order_kept": 1}, abs=1e-3)
    lossy = distortion(shop.wide)
    kept = []
    for number in range(2):
        here = np.flatnonzero((shop.context.images.verticals == number) & shop.context.images.is_train)
        values = np.linalg.svd(raw(shop, shop.wide, number)[here], compute_uv=False) ** 2
        kept.append((values[:SIZE].sum(), values.sum()))
    assert lossy["energy_kept"] == pytest.approx(np.sum(kept, axis=0)[0] / np.sum(kept, axis=0)[1], abs=1e-4)
    assert 0 < lossy["distance_error"] < 1
    assert distortion(shop.wide, projection="random")["distance_error"] > lossy["distance_error"]
    assert lossy == asdict(fit_target_map(shop.context, [shop.wide], TargetsConfig()).distortion)
    mean = distortion_of(shop.context, [shop.own, shop.joint], TargetsConfig(join="mean"))
    assert 0 < mean["energy_kept"] <= 1


@pytest.mark.parametrize("reference", ["auto", "base", "joint", "specialists"])
@pytest.mark.parametrize("rounds", [1, 3])
def test_aligning_one_member_leaves_distances_within_a_vertical(shop: Shop, reference: str, rounds: int) -> None:
    before = clean(shop, [shop.own], align=False)
    after = clean(shop, [shop.own], reference=reference, rounds=rounds)
    assert not np.allclose(before, after, atol=0.1)
    for number in range(2):
        here = shop.context.images.verticals == number
        np.testing.assert_allclose(after[here] @ after[here].T, before[here] @ before[here].T, atol=1e-5)


def test_specialists_come_nearer_to_each_other_by_every_reference(shop: Shop) -> None:
    """Where both specialists put the same images: the sum of squares between the two."""

    def apart(config: TargetsConfig) -> float:
        found = fit_target_map(shop.context, [shop.own], config)
        spaces = [raw(shop, shop.own, number) @ found.matrices[0][number] for number in range(2)]
        return float(((spaces[0] - spaces[1])[fitted_on(shop)] ** 2).sum())

    plain = apart(TargetsConfig(align=False))
    together = apart(TargetsConfig(reference="specialists"))
    assert together < plain
    assert together < apart(TargetsConfig(reference="base"))


def test_a_joint_model_that_is_the_reference_stays_where_it_is(shop: Shop) -> None:
    found = clean(shop, [shop.joint, shop.own], reference="joint", join="mean")
    assert clean(shop, [shop.joint], reference="joint") == pytest.approx(raw(shop, shop.joint, 0), abs=1e-5)
    expected = np.zeros_like(found)
    train, joint = fitted_on(shop), raw(shop, shop.joint, 0)
    for number in range(2):
        here = shop.context.images.verticals == number
        own = raw(shop, shop.own, number)
        fit = train[here[train]]
        rotation, _ = orthogonal_procrustes(own[fit], joint[fit])
        expected[here] = unit(joint[here] + own[here] @ rotation)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("join", ["concat", "mean"])
@pytest.mark.parametrize("rounds", [1, 3])
def test_an_ensemble_is_what_a_loop_over_images_gives(shop: Shop, join: str, rounds: int) -> None:
    members = [shop.own, shop.joint, shop.wide]
    train, verticals = fitted_on(shop), shop.context.images.verticals
    spaces = []
    for member in members:
        rows = np.zeros((72, SIZE))
        for number in range(2) if member.routed else [None]:
            here = np.ones(72, bool) if number is None else verticals == number
            own = raw(shop, member, number or 0)
            if own.shape[1] > SIZE:
                fit = train[here[train]]
                _, _, axes = np.linalg.svd(own[fit], full_matrices=False)
                own = own @ axes[:SIZE].T
            rows[here] = own[here]
        spaces.append(rows)
    reference = spaces[1]
    for _ in range(rounds):
        for member, space in zip(members, spaces, strict=True):
            for number in range(2) if member.routed else [None]:
                here = np.ones(72, bool) if number is None else verticals == number
                fit = train[here[train]]
                rotation, _ = orthogonal_procrustes(unit(space[fit]), reference[fit])
                space[here] = space[here] @ rotation
        reference = np.mean([unit(space) for space in spaces], axis=0)
    beside = np.concatenate([unit(space[train]) for space in spaces], axis=1)
    _, _, axes = np.linalg.svd(beside, full_matrices=False)
    expected = np.zeros((72, SIZE))
    for image in range(72):
        row = np.concatenate([space[image] for space in spaces])
        expected[image] = row @ axes[:SIZE].T if join == "concat" else np.sum(row.reshape(3, SIZE), axis=0)
    expected = unit(expected)
    found = clean(shop, members, join=join, rounds=rounds)
    if join == "concat":  # the sign of a principal direction is a matter of taste
        expected = expected * np.sign((expected * found).sum(axis=0))
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_members_may_come_in_any_order(shop: Shop) -> None:
    one, other = (
        clean(shop, members, reference="base") for members in ([shop.own, shop.joint], [shop.joint, shop.own])
    )
    np.testing.assert_allclose(one @ one.T, other @ other.T, atol=1e-4)


def test_an_offset_sets_verticals_apart_at_the_same_size(shop: Shop) -> None:
    offset = 0.5
    placed = clean(shop, [shop.own, shop.joint], offset=offset)
    assert placed.shape == (72, SIZE)
    np.testing.assert_allclose(np.linalg.norm(placed, axis=1), 1, atol=1e-5)
    verticals = shop.context.images.verticals
    np.testing.assert_allclose(placed[:, -1] ** 2, offset**2, atol=1e-5)
    assert len(np.unique(np.sign(placed[verticals == 0, -1]))) == 1
    assert np.sign(placed[verticals == 0, -1][0]) != np.sign(placed[verticals == 1, -1][0])


def test_an_offset_needs_room(shop: Shop) -> None:
    room = simplex_size(2)
    recipe = replace(shop.context.recipe, model=replace(shop.context.recipe.model, size=room))
    small = RunContext(Run(shop.context.run.path), shop.context.images.catalogue, recipe)
    message = r"unify\.targets\.offset needs 1 of the 1 dimensions for 2 verticals; raise model\.size"
    with pytest.raises(BadInputError, match=message):
        fit_target_map(small, [shop.own], TargetsConfig(offset=0.2))


def test_they_are_computed_once_and_fitted_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    config, fits = TargetsConfig(confidence=0.123), []
    fit = module._fit

    def counted(*arguments: object, **named: object) -> object:
        fits.append(arguments)
        return fit(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_fit", counted)
    first, second = (learning_targets(shop.context, [shop.own], config) for _ in range(2))
    np.testing.assert_array_equal(first.clean(shop.everything), second.clean(shop.everything))
    assert len(fits) == 1
    distortion_of(shop.context, [shop.own], config)
    distortion_of(shop.context, [shop.own], config)
    assert len(fits) == 1


def test_known_verticals_need_no_prediction(shop: Shop) -> None:
    weights = vertical_weights(shop.context, TargetsConfig(confidence=1), shop.everything)
    np.testing.assert_array_equal(weights, np.eye(2)[shop.context.images.verticals])


def test_uncertain_images_get_a_weighted_target(shop: Shop) -> None:
    work = shop.context
    found = fit_target_map(work, [shop.own, shop.joint], TargetsConfig())
    positions, views = fitted_on(shop)[:4], np.array([0, 1, 2, 0])
    weights = np.array([[1, 0], [0.25, 0.75], [0, 0], [0, 1]], np.float32)
    rows = found.rows(work, positions, views, weights)
    for place, (position, view) in enumerate(zip(positions, views, strict=True)):
        one = np.array([position]), np.array([view])
        total = np.zeros(SIZE)
        for member, matrices in zip(found.members, found.matrices, strict=True):
            for number, matrix in enumerate(matrices):
                own = work.features.source.embed(member.models[number].embedder, *one).detach().numpy()[0]
                total += (weights[place, number] if member.routed else 1) * (own @ matrix)
        np.testing.assert_allclose(rows[place], unit(total[None])[0], atol=1e-5)


def test_a_vertical_without_training_images_is_named(shop: Shop) -> None:
    work = shop.context
    bare = RunContext(work.run, work.images.catalogue, work.recipe)
    bare.images.__dict__["is_train"] = work.images.is_train & ~work.images.of_vertical("squares")
    with pytest.raises(BadInputError, match="no training images to align on in: squares; add some"):
        fit_target_map(bare, [shop.own], TargetsConfig())


def test_settings_that_do_not_go_together_are_refused(shop: Shop) -> None:
    with pytest.raises(BadInputError, match="at least one member, got none"):
        fit_target_map(shop.context, [], TargetsConfig())
    for change in ({"reference": "base"}, {"rounds": 2}):
        with pytest.raises(BadInputError, match="has no effect where align is false"):
            TargetsConfig(align=False, **change)  # type: ignore[arg-type]
    for config in ({"members": ("specialists",)}, {"way": "specialists"}):
        with pytest.raises(BadInputError, match="needs a joint model among the members"):
            UnifyConfig(targets=TargetsConfig(reference="joint"), **config)  # type: ignore[arg-type]
