from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.shop import Shop, clean_targets, fitted_on
from univert.core.run import Run
from univert.training.features import VerticalPredictor
from univert.training.run_context import RunContext
from univert.training.targets import map as module
from univert.training.targets.alignment import unit
from univert.training.targets.config import UnifyConfig
from univert.training.targets.learning_targets import (
    distortion_of,
    learning_targets,
    targets_by_predicted_vertical,
    weights_of_predictions,
)
from univert.training.targets.map import fit_target_map


def test_plain_targets_are_the_specialists_own_embeddings_of_every_view(shop: Shop) -> None:
    work = shop.context
    found = learning_targets(work, [shop.own], UnifyConfig(align=False))
    positions = fitted_on(shop)
    for view in range(work.recipe.data.views + 1):
        views = np.full(len(positions), view)
        rows = found.gather(positions, views)
        for name, trained in zip(work.images.vertical_names, shop.own.models, strict=True):
            here = work.images.of_vertical(name)[positions]
            expected = work.features.source.embed(trained.embedder, positions[here], views[here])
            np.testing.assert_allclose(rows[here], expected.detach().numpy(), atol=1e-6)


def test_they_are_computed_once_and_fitted_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    config, fits = UnifyConfig(), []
    work = RunContext(Run(shop.context.run.path / "once"), shop.context.images.catalogue, shop.context.recipe)
    fit = module._fit

    def counted(*arguments: object) -> object:
        fits.append(arguments)
        return fit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_fit", counted)
    first, second = (learning_targets(work, [shop.own], config).clean(shop.everything) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert len(fits) == 1
    assert distortion_of(work, [shop.own], config) == distortion_of(shop.context, [shop.own], config)
    np.testing.assert_allclose(first, clean_targets(shop, [shop.own]), atol=1e-5)


def test_predicted_verticals_weigh_the_specialists_by_their_probability(shop: Shop) -> None:
    work, members, config = shop.context, [shop.own, shop.joint], UnifyConfig()
    matrices = fit_target_map(work, members, config).matrices
    odds = work.features.vertical_probabilities(shop.everything)
    odds = np.where(odds >= 0.05, odds, 0)
    odds /= odds.sum(axis=1, keepdims=True)
    total = work.features.source.embed_all(shop.joint.models[0].embedder, shop.everything) @ matrices[1][0]
    for number, model in enumerate(shop.own.models):
        own = work.features.source.embed_all(model.embedder, shop.everything)
        total += odds[:, number, None] * (own @ matrices[0][number])
    found = targets_by_predicted_vertical(work, members, config, shop.everything)
    np.testing.assert_allclose(found, unit(total), atol=1e-5)
    labelled = targets_by_predicted_vertical(work, members, replace(config, unlabelled=False), shop.everything)
    assert not np.allclose(found, labelled, atol=1e-4)


def test_verticals_are_predicted_and_one_alone_needs_no_fit() -> None:
    rng = np.random.default_rng(0)
    centres = unit(rng.normal(size=(3, 8)))
    verticals = np.arange(60) % 3
    features = unit(centres[verticals] + 0.1 * rng.normal(size=(60, 8))).astype(np.float32)
    predict = VerticalPredictor(features[:30], verticals[:30], 3)
    found = predict(features[30:])
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(found.argmax(axis=1), verticals[30:])
    assert predict(features[:0]).shape == (0, 3)
    alone = VerticalPredictor(features, np.zeros(60, np.int64), 1)
    np.testing.assert_array_equal(alone(features), np.ones((60, 1)))


@given(st.integers(0, 1000), st.integers(1, 40), st.floats(0, 1), st.floats(0, 6))
def test_weights_sum_to_one_and_follow_the_probabilities(
    seed: int, count: int, confidence: float, spread: float
) -> None:
    logits = spread * np.random.default_rng(seed).normal(size=(7, count))
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    found = weights_of_predictions(probabilities, confidence)
    best, sure = probabilities.argmax(axis=1), probabilities.max(axis=1) >= confidence
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(found[sure], np.eye(count)[best[sure]])
    for weights, odd in zip(found[~sure], probabilities[~sure], strict=True):
        kept = weights > 0
        np.testing.assert_allclose(weights[kept], odd[kept] / odd[kept].sum(), rtol=1e-5)
        assert kept[odd.argmax()]
        assert (odd[~kept] < 0.05).all()
