"""The heads of several members as one, against the sum of what each of them gives."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.shop import Shop
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.training.jobs import TrainingJob
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.specialists import train_joint
from univert.training.targets.alignment import unit
from univert.training.targets.config import UnifyConfig
from univert.training.targets.joined_head import joined_embedder
from univert.training.targets.map import TargetMap, fit_target_map
from univert.training.targets.members import Member
from univert.training.unify import train_unified


@pytest.fixture(scope="module")
def linear(shop: Shop) -> list[Member]:
    """Two models for all verticals without a hidden layer."""
    members = []
    for seed in (1, 2):
        embedder = shop.context.new_embedder(hidden_sizes=(), batch_norm=seed == 2)
        with torch.no_grad():
            embedder.head.second.weight += torch.randn(8, 1, generator=torch.Generator().manual_seed(seed))
        model = replace(shop.joint.models[0], key=f"linear {seed}")
        model.__dict__["embedder"] = embedder.eval()
        members.append(Member(name=f"joint:triplet#{seed}", title="linear", models=(model,)))
    return members


@pytest.fixture(scope="module")
def second(shop: Shop) -> Member:
    """Another model for all verticals: the joint one, its hidden units and its norms changed."""
    model = replace(shop.joint.models[0], key="changed")
    embedder = shop.context.new_embedder(hidden_sizes=(12,), batch_norm=True)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for tensor in [*embedder.head.parameters(), *embedder.head.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.2)
    model.__dict__["embedder"] = embedder.eval()
    return Member(name="joint:triplet#1", title="second", models=(model,))


def fitted(shop: Shop, members: Sequence[Member]) -> TargetMap:
    return fit_target_map(shop.context, members, UnifyConfig())


@pytest.mark.parametrize("hidden", [True, False])
def test_it_sums_what_the_members_heads_give(shop: Shop, second: Member, linear: list[Member], hidden: bool) -> None:
    work, targets = shop.context, fitted(shop, [shop.joint, second] if hidden else linear)
    joined = joined_embedder(work, targets, np.flatnonzero(work.images.is_train))
    assert joined is not None
    train = np.flatnonzero(work.images.is_train)
    total = np.zeros((72, targets.size))
    for member, matrices in zip(targets.members, targets.matrices, strict=True):
        embedder = member.embedders[0]
        with torch.no_grad():
            features = work.features.source.load(shop.everything, np.zeros(72, np.int64))
            outputs = embedder.head(features).numpy().astype(np.float64)
        total += outputs @ matrices[0] / np.linalg.norm(outputs[train], axis=1).mean()
    np.testing.assert_allclose(work.features.source.embed_all(joined, shop.everything), unit(total), atol=1e-4)
    own = [sum(member.embedders[0].config.hidden_sizes) for member in targets.members]
    assert joined.config.hidden_sizes == ((sum(own),) if hidden else ())
    assert joined.config.batch_norm


def test_the_training_goes_on_from_there(shop: Shop, second: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    work, members, jobs = shop.context, [shop.joint, second], list[TrainingJob]()
    monkeypatch.setattr(type(work.stages), "learn", lambda self, name, job, folder: jobs.append(job) or {})
    config = work.recipe.unify
    for start in ("members", "random"):
        with contextlib.suppress(KeyError):  # the record is empty
            train_unified(work, members, name="start", config=replace(config, start=start))  # type: ignore[arg-type]
    joined, random = jobs
    expected = joined_embedder(work, fitted(shop, members), np.flatnonzero(work.images.is_train))
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(joined.embedder.state_dict()[name], tensor)
    assert (joined.starts_trained, random.starts_trained) == (True, False)
    assert random.embedder.config.hidden_sizes == work.recipe.model.hidden_sizes
    rates = [job.loop.learning_rate for job in jobs]
    assert rates == [0.25 * config.loop.learning_rate, config.loop.learning_rate]


def test_where_the_base_network_learns_it_starts_from_the_member_that_did_best(
    catalogue: Catalogue, recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(recipe, base_network_learns="last_blocks", last_blocks=1)
    work = RunContext(Run(tmp_path), catalogue, recipe)
    models = [train_joint(work, loss, 120) for loss in ("triplet", "proxy-nca")]
    members = [Member(name=f"joint:{model.name}", title="", models=(model,)) for model in models]
    targets = fit_target_map(work, members, UnifyConfig())
    everything = np.arange(len(catalogue))
    joined = joined_embedder(work, targets, np.flatnonzero(work.images.is_train))
    assert joined is not None
    best = members[1].embedders[0]
    for name, tensor in best.base_network.state_dict().items():
        assert joined.base_network.state_dict()[name].equal(tensor)
    assert joined.config.hidden_sizes == best.config.hidden_sizes
    expected = unit(work.features.source.embed_all(best, everything) @ targets.matrices[1][0])
    np.testing.assert_allclose(work.features.source.embed_all(joined, everything), expected, atol=1e-3)
