"""Dynamic assignment and sparse proxies within the loop, and what the bounds monitor writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.losses.dynamic_proxy_nca_loss import DynamicProxyNCALoss
from univert.losses.proxy_nca_loss import ProxyNCALoss
from univert.training.objectives import DynamicObjective, LabelObjective, label_objective
from univert.training.recipe import Recipe, SpecialistsConfig
from univert.training.specialists import label_lesson, train_on_labels
from univert.training.workshop import Workshop


@pytest.fixture
def workshop(catalogue: Catalogue, recipe: Recipe, tmp_path: Path) -> Workshop:
    return Workshop(Run(tmp_path), catalogue, recipe)


def config(workshop: Workshop, **changes: object) -> SpecialistsConfig:
    return replace(workshop.recipe.specialists, **changes)  # type: ignore[arg-type]


def everything(workshop: Workshop) -> np.ndarray:
    return np.ones(len(workshop.catalogue), bool)


def test_the_objective_suits_the_loss() -> None:
    products = np.array([0, 0, 1, 1, -1])
    assert isinstance(label_objective(DynamicProxyNCALoss(3, 4, seed=0), products), DynamicObjective)
    assert isinstance(label_objective(ProxyNCALoss(3, 4, seed=0), products), LabelObjective)


def test_images_are_assigned_in_their_batch_and_all_of_them_at_a_refresh() -> None:
    products = np.array([0, 0, -1, 1, 1])
    loss = DynamicProxyNCALoss(3, 4, seed=0)
    objective = DynamicObjective(loss, products, reseed_every_steps=2)
    vectors = torch.nn.functional.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(1)))

    def embed_all(positions: np.ndarray) -> np.ndarray:
        return vectors[positions].numpy()

    positions = np.array([0, 4])
    objective(vectors[positions], positions, np.zeros(2, np.int64))
    nearest = objective.assignment.nearest
    assert nearest.tolist() == [int(loss.nearest(vectors[:1])), -1, -1, int(loss.nearest(vectors[4:]))]
    objective.after_step(0, embed_all)
    assert (objective.assignment.nearest == -1).sum() == 2
    objective.after_step(1, embed_all)
    assert (objective.assignment.nearest >= 0).all()
    restored = DynamicObjective(DynamicProxyNCALoss(3, 4, seed=5), products, reseed_every_steps=2)
    restored.load_state_dict(objective.state_dict())
    assert restored.assignment.nearest.equal(objective.assignment.nearest)
    assert restored.figures() == objective.figures()


def test_a_dynamic_training_reports_dead_proxies_and_bounds(workshop: Workshop) -> None:
    chosen = config(
        workshop,
        loss="dynamic-proxy-nca",
        proxies_per_product=2.0,
        proxy_start="data",
        reseed_every_steps=4,
    )
    curves = train_on_labels(workshop, chosen, name="dynamic").record["monitor_curves"]
    assert {"dead_proxies", "nca_tightness", "triplet_tightness", "order_preserved", "eps_max"} <= set(curves)
    for points in curves.values():
        assert np.isfinite([value for _, value in points]).all()


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_proxies_start_where_their_images_are(workshop: Workshop, ratio: float) -> None:
    chosen = config(workshop, loss="proxy-nca", proxies_per_product=ratio, proxy_start="data")
    near = label_lesson(workshop, chosen, everything(workshop)).monitor
    far = label_lesson(workshop, replace(chosen, proxy_start="random"), everything(workshop)).monitor
    assert near is not None
    assert far is not None
    assert near()["eps_mean"] < far()["eps_mean"]


def test_sampled_negatives_with_sparse_gradients_train_and_resume(workshop: Workshop) -> None:
    options = {"negatives": 4, "sparse": True}
    chosen = config(workshop, loss="proxy-nca", loss_options=options)
    whole = train_on_labels(workshop, chosen, name="whole")
    lesson = label_lesson(workshop, chosen, everything(workshop))
    stopped = replace(lesson, objective=Interrupts(lesson.objective, 7))
    with pytest.raises(KeyboardInterrupt):
        workshop.learn("resumed", stopped, workshop.run.path / "work")
    lesson = label_lesson(workshop, chosen, everything(workshop))
    workshop.learn("resumed", replace(lesson, objective=Interrupts(lesson.objective, 10**6)), workshop.run.path / "work")
    for name, value in whole.embedder.head.state_dict().items():
        torch.testing.assert_close(lesson.embedder.head.state_dict()[name], value, rtol=0, atol=0)


class Interrupts(LabelObjective):
    """Another objective that Ctrl-C stops at a step."""

    def __init__(self, inner: object, step: int) -> None:
        assert isinstance(inner, LabelObjective)
        super().__init__(inner.loss, inner._products.numpy())
        self.left = step

    def forward(self, embeddings: torch.Tensor, positions: np.ndarray, views: np.ndarray) -> torch.Tensor:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return super().forward(embeddings, positions, views)
