from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes

from univert.core.errors import BadInputError
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.training.recipe import Recipe
from univert.training.specialists import train_joint, train_specialist
from univert.training.unify import learning_targets
from univert.training.views import ViewArrays
from univert.training.workshop import Workshop


def test_rows_come_back_by_position_and_view(tmp_path: Path) -> None:
    asked: list[int] = []

    def compute(positions: np.ndarray, views: np.ndarray) -> Iterator[np.ndarray]:
        asked.append(int(views[0]))
        for start in range(0, len(positions), 3):
            part = slice(start, start + 3)
            yield np.stack([positions[part], views[part]], axis=1).astype(np.float32)

    def arrays() -> ViewArrays:
        return ViewArrays(
            tmp_path / "a", "test", count=9, augmented=np.array([1, 4, 8]), views=2, width=2, compute=compute
        )

    found = arrays().gather(np.array([8, 0, 4, 8]), np.array([1, 0, 2, 0]))
    np.testing.assert_array_equal(found, [[8, 1], [0, 0], [4, 2], [8, 0]])
    np.testing.assert_array_equal(arrays().clean(np.array([5])), [[5, 0]])
    assert asked == [0, 1, 2], "computed once, then read"
    (tmp_path / "a" / "view-1.npy").unlink()
    arrays()
    assert asked == [0, 1, 2, 1]
    with pytest.raises(IndexError, match="position 0 has no augmented view 2"):
        arrays().gather(np.array([1, 0]), np.array([2, 2]))


def test_learning_targets_are_the_specialists_embeddings(
    catalogue: Catalogue, recipe: Recipe, tmp_path: Path
) -> None:
    workshop = Workshop(Run(tmp_path), catalogue, recipe)
    specialists = {name: train_specialist(workshop, name) for name in workshop.vertical_names}
    plain = learning_targets(workshop, specialists, align=False)
    aligned = learning_targets(workshop, specialists, align=True)
    positions = np.flatnonzero(workshop.is_train)
    for view in range(recipe.data.views + 1):
        views = np.full(len(positions), view)
        for name, trained in specialists.items():
            here = workshop.of_vertical(name)[positions]
            expected = workshop.source.embed(trained.embedder, positions[here], views[here])
            np.testing.assert_allclose(
                plain.gather(positions, views)[here], expected.detach().numpy(), atol=1e-6
            )
    everything = np.arange(len(catalogue))
    before, after = plain.clean(everything), aligned.clean(everything)
    for name in workshop.vertical_names:
        here = workshop.of_vertical(name)
        np.testing.assert_allclose(before[here] @ before[here].T, after[here] @ after[here].T, atol=1e-5)
    assert not np.allclose(before, after)


def test_an_ensemble_is_the_mean_with_the_joint_model(
    catalogue: Catalogue, recipe: Recipe, tmp_path: Path
) -> None:
    workshop = Workshop(Run(tmp_path), catalogue, recipe)
    specialists = {name: train_specialist(workshop, name) for name in workshop.vertical_names}
    joint = train_joint(workshop, "proxy-nca", 200)
    everything = np.arange(len(catalogue))
    own = workshop.source.embed_all(joint.embedder, everything)
    plain = learning_targets(workshop, specialists, align=False).clean(everything)
    found = learning_targets(workshop, specialists, align=True, joint=joint).clean(everything)
    for name in workshop.vertical_names:
        here, train = workshop.of_vertical(name), workshop.of_vertical(name) & workshop.is_train
        rotation, _ = orthogonal_procrustes(plain[train], own[train])
        mean = plain[here] @ rotation + own[here]
        np.testing.assert_allclose(found[here], mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-4)


def test_a_vertical_without_a_specialist_is_named(
    catalogue: Catalogue, recipe: Recipe, tmp_path: Path
) -> None:
    workshop = Workshop(Run(tmp_path), catalogue, recipe)
    with pytest.raises(BadInputError, match="no specialist for: discs, squares"):
        learning_targets(workshop, {}, align=True)


@pytest.mark.parametrize("consistent", [True, False])
def test_fixed_and_consistent_targets_both_train(
    catalogue: Catalogue, recipe: Recipe, tmp_path: Path, consistent: bool
) -> None:
    from univert.training.pipeline import train

    recipe = replace(
        recipe,
        unify=replace(recipe.unify, consistent=consistent),
        evaluation=replace(recipe.evaluation, baselines=()),
    )
    result = train(catalogue, tmp_path, recipe, report=False)
    assert 0 <= result.recall_at_1("unified") <= 1
