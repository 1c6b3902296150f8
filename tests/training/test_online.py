"""Online training: who learns from whom, which verticals come more often, and a run that was killed."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.training.test_unify import quick
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.main_job import train
from univert.models.embedder import Embedder
from univert.report.page import report_run
from univert.training import loop as training_loop
from univert.training.jobs import TrainingJob
from univert.training.online import TEMPERATURE, OnlineObjective, online_config, online_job
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext


def job_of(context: RunContext) -> tuple[TrainingJob, OnlineObjective]:
    job = online_job(context, online_config(context, 144))
    assert isinstance(job.objective, OnlineObjective)
    return job, job.objective


def test_unified_head_and_base_network_learn_from_specialists_and_not_the_other_way_round(context: RunContext) -> None:
    job, objective = job_of(context)
    positions = job.sampler.batch(0)
    features = torch.randn(len(positions), job.embedder.feature_size, requires_grad=True)
    value = objective(features, positions, np.zeros_like(positions))

    embeddings, labels = job.embedder.project(features), objective._products[positions]
    joint, own_losses, divergences = objective.loss(embeddings, labels), torch.zeros(()), torch.zeros(())
    for vertical, specialist in enumerate(objective._specialists):
        rows = context.images.verticals[positions] == vertical
        vectors = functional.normalize(specialist.head(features[rows]))
        own = torch.searchsorted(specialist.products, labels[rows])
        own_losses = own_losses + rows.mean() * specialist.loss(vectors, own)
        mine, theirs = (
            (2 * 4 / TEMPERATURE * vectors_BD @ functional.normalize(proxies).T).softmax(1)
            for vectors_BD, proxies in (
                (embeddings[rows], objective.loss.proxies[specialist.products]),
                (vectors.detach(), specialist.loss.proxies.detach()),
            )
        )
        divergences = divergences + rows.mean() * (theirs * (theirs.log() - mine.log())).sum(1).mean()
    unified = joint + TEMPERATURE**2 * divergences
    torch.testing.assert_close(value, unified + own_losses)
    first = objective._specialists[0]
    assert_same_gradients(value, unified, [features, job.embedder.head.second.weight, objective.loss.proxies])
    assert_same_gradients(value, own_losses, [first.head.second.weight, first.loss.proxies])


def assert_same_gradients(found: torch.Tensor, wanted: torch.Tensor, of: list[torch.Tensor]) -> None:
    pairs = zip(*(torch.autograd.grad(value, of, retain_graph=True) for value in (found, wanted)), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other)


def test_verticals_that_learn_slowly_come_more_often(context: RunContext) -> None:
    job, objective = job_of(context)
    verticals, products = context.images.verticals, objective._products

    def share_of_first(steps: int) -> float:
        batches = []
        for step in range(steps):
            batches.append(job.sampler.batch(step))
            objective._next_turns(products[batches[-1]].unique())
        seen = np.concatenate(batches)
        assert len(products[seen].unique()) == 8
        return float(np.mean(verticals[seen] == 0))

    assert share_of_first(20) == pytest.approx(0.5, abs=0.05)
    objective.running[0], objective.running[1] = 0.1, 0.3
    assert share_of_first(40) == pytest.approx(0.25, abs=0.05)


def test_an_interrupted_training_ends_with_the_same_weights(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_loop, "CHECKPOINT_EVERY_SECONDS", 0)
    monkeypatch.setattr("univert.training.online.SMOOTHING", 0.0)  # each batch changes what the next are made of

    def learn(name: str, stop_at: int) -> dict[str, torch.Tensor]:
        job, objective = job_of(context)
        calls, forward = itertools.count(1), objective.forward

        def interrupted(*args: object) -> torch.Tensor:
            if next(calls) == stop_at:
                raise KeyboardInterrupt
            return forward(*args)  # type: ignore[arg-type]

        objective.forward = interrupted  # type: ignore[method-assign, assignment]
        job = replace(job, loop=replace(job.loop, evaluations=12))
        context.stages.learn("test", job, context.run.path / name)
        return {**job.embedder.head.state_dict(), **objective.state_dict()}

    whole = learn("whole", 0)
    for stop_at in (1, 3, 5):
        with pytest.raises(KeyboardInterrupt):
            learn("resumed", stop_at)
    resumed = learn("resumed", 0)
    assert whole["turns"].max() > 2
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0, msg=name)


def test_what_comes_out_is_an_ordinary_model(catalogue: Catalogue, recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(quick(recipe, way="online"), base_network_learns="last_blocks")
    catalogue = catalogue.select(split=["train", "test"])  # so the last weights stay, whatever they are worth
    result = train(catalogue, tmp_path, recipe, report=False)
    assert [row["key"] for row in result.results["rows"]] == ["base", "specialists", "unified"]
    assert result.results["choice"]["chosen"] == "unified_online"
    report_run(result.finished)
    assert "Unified, online" in (tmp_path / "report.html").read_text()
    model = Embedder.from_pretrained(tmp_path / "unified")
    base = RunContext(Run(tmp_path), catalogue, recipe).features.base
    learned = model.base_network.state_dict()
    assert any(not value.equal(learned[name]) for name, value in base.base_network.state_dict().items())
    assert {name for name in model.state_dict() if name.startswith("head.")} == {
        name for name in result.model.state_dict() if name.startswith("head.")
    }
