"""Dynamic assignment and sparse proxies within the loop, and what the bounds monitor writes."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from univert.core.errors import BadInputError
from univert.losses.dynamic_proxy_nca_loss import DynamicProxyNCALoss
from univert.losses.proxy_nca_loss import ProxyNCALoss
from univert.training.label_config import SpecialistsConfig
from univert.training.label_training import label_job
from univert.training.objectives import DynamicObjective, LabelObjective, Objective
from univert.training.results import training_curves
from univert.training.run_context import RunContext
from univert.training.specialists import train_joint, train_on_labels


def config(context: RunContext, **changes: object) -> SpecialistsConfig:
    return replace(context.recipe.specialists, **changes)  # type: ignore[arg-type]


def everything(context: RunContext) -> np.ndarray:
    return np.ones(len(context.images.catalogue), bool)


def test_all_images_are_assigned_anew_every_so_many_steps_and_dead_proxies_put_to_use() -> None:
    products = np.array([0, 0, -1, 1, 1])
    loss = DynamicProxyNCALoss(3, 4, seed=0)
    objective = DynamicObjective(loss, products, reseed_every_steps=2, seed=0)
    vectors = torch.tensor([[1.0, 0, 0, 0], [0.9, 0.1, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0.1, 0.9, 0, 0]])
    assert objective.after_step(0, lambda positions: vectors[positions].numpy()) == []
    assert objective.figures() == {}
    ((parameter, moved),) = objective.after_step(1, lambda positions: vectors[positions].numpy())
    assert parameter is loss.bank.proxies
    assert objective.figures() == {"dead_proxies": float(len(moved))}
    assert objective.assignment.nearest.unique().tolist() == [0, 1, 2]
    restored = DynamicObjective(DynamicProxyNCALoss(3, 4, seed=5), products, reseed_every_steps=2, seed=0)
    restored.load_state_dict(objective.state_dict())
    assert restored.assignment.nearest.equal(objective.assignment.nearest)
    assert restored.figures() == objective.figures()


def test_images_may_belong_to_random_proxies_until_all_are_assigned_anew() -> None:
    products, loss = np.array([0, -1, 0, 1, 1]), DynamicProxyNCALoss(3, 4, seed=0)
    objective = DynamicObjective(loss, products, reseed_every_steps=1, seed=2, random_first=True)
    vectors, shown = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), np.array([3, 0, 4, 2])
    own = objective.assignment.nearest.clone()
    assert own.min() >= 0
    expected = loss(vectors[shown], torch.from_numpy(products[shown]), assigned=own[[2, 0, 3, 1]])
    assert objective(vectors[shown], shown, shown * 0) == expected
    assert expected != loss(vectors[shown], torch.from_numpy(products[shown]))
    objective.after_step(0, lambda positions: vectors[positions].numpy())
    assert objective(vectors[shown], shown, shown * 0) == loss(vectors[shown], torch.from_numpy(products[shown]))


def test_an_image_without_a_product_is_refused() -> None:
    objective = LabelObjective(ProxyNCALoss(3, 4, seed=0), np.array([0, -1, 1]))
    with pytest.raises(BadInputError, match="without a product, at position 1"):
        objective(torch.eye(4)[:2], np.array([0, 1]), np.zeros(2, np.int64))


def test_a_dynamic_training_reports_dead_proxies_and_bounds(context: RunContext) -> None:
    chosen = config(
        context, loss="dynamic-proxy-nca", proxies_per_product=2.0, proxy_start="data", reseed_every_steps=4
    )
    curves = train_on_labels(context, chosen, name="dynamic").record["monitor_curves"]
    assert {"dead_proxies", "nca_tightness", "triplet_tightness", "order_preserved", "eps_max"} <= set(curves)
    for points in curves.values():
        assert np.isfinite([value for _, value in points]).all()


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_proxies_start_where_their_images_are(context: RunContext, ratio: float) -> None:
    chosen = config(context, loss="proxy-nca", proxies_per_product=ratio, proxy_start="data")
    near = label_job(context, chosen, everything(context), folder=context.run.path / "x").monitor
    far = label_job(
        context, replace(chosen, proxy_start="random"), everything(context), folder=context.run.path / "x"
    ).monitor
    assert near()["eps_mean"] < far()["eps_mean"]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"loss": "proxy-nca", "loss_options": {"negatives": 4, "sparse": True}}, id="sparse"),
        pytest.param({"loss": "dynamic-proxy-nca", "reseed_every_steps": 2}, id="dynamic"),
        pytest.param({"miner": "hard", "mine_every_steps": 4}, id="strong negatives"),
    ],
)
def test_an_interrupted_training_ends_with_the_same_weights_and_proxies(
    context: RunContext, changes: dict[str, object]
) -> None:
    chosen = config(context, **changes)

    def learn(name: str, stop_at: int) -> dict[str, torch.Tensor]:
        folder = context.run.path / name
        job = label_job(context, chosen, everything(context), folder=folder)
        context.stages.learn("test", replace(job, objective=interrupted(job.objective, stop_at)), folder)
        return {**job.embedder.head.state_dict(), **job.objective.state_dict()}

    whole = learn("whole", 0)
    for stop_at in (3, 5):
        with pytest.raises(KeyboardInterrupt):
            learn("resumed", stop_at)
    resumed = learn("resumed", 0)
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0, equal_nan=True, msg=name)


def interrupted(objective: Objective, stop_at: int) -> Objective:
    """The same objective, stopped as by Ctrl-C at a call (0: never)."""
    calls = itertools.count(1)
    inner = objective.forward

    def forward(*args: object) -> torch.Tensor:
        if next(calls) == stop_at:
            raise KeyboardInterrupt
        return inner(*args)  # type: ignore[arg-type]

    objective.forward = forward  # type: ignore[method-assign, assignment]
    return objective


def test_bounds_reach_tensorboard_and_the_record(context: RunContext) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained = train_on_labels(context, config(context, loss="proxy-nca"), name="joint/bounds")
    events = EventAccumulator(str(context.run.path / "log" / "joint" / "bounds")).Reload()
    logged = set(events.Tags()["scalars"])
    assert {"loss", "validation", "nca_tightness", "triplet_tightness", "order_preserved"} <= logged
    assert {"NCA bound minus loss", "triplet order kept by proxies"} <= set(training_curves(trained)["watched"])


@pytest.mark.parametrize(
    ("loss", "present", "absent"),
    [
        ("proxy-triplet", "triplet_tightness", "nca_tightness"),
        ("proxy-anchor", "order_preserved", "triplet_tightness"),
        ("normalized-softmax", "nca_tightness", "none"),
    ],
)
def test_only_bounds_of_the_loss_that_is_trained_are_shown(
    context: RunContext, loss: str, present: str, absent: str
) -> None:
    monitor = label_job(context, config(context, loss=loss), everything(context), folder=context.run.path / "x").monitor
    found = monitor()
    assert present in found
    assert absent not in found


def test_a_joint_triplet_model_gets_positives_where_the_specialists_need_none(context: RunContext) -> None:
    loop = replace(context.recipe.specialists.loop, images_per_product=1)
    recipe = replace(context.recipe, specialists=config(context, loss="proxy-nca", loop=loop))
    other = RunContext(context.run, context.images.catalogue, recipe)
    assert train_joint(other, "triplet", 48).record["steps"] == 4
