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
from univert.models.embedder import Embedder
from univert.training.averaging import greedy_soup
from univert.training.jobs import TrainingJob
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.specialists import train_joint
from univert.training.targets.alignment import unit
from univert.training.targets.config import UnifyConfig
from univert.training.targets.learning_targets import learning_targets
from univert.training.targets.map import TargetMap, fit_target_map
from univert.training.targets.members import Member
from univert.training.targets.start import embedder_of_members
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


def joined(context: RunContext, members: Sequence[Member]) -> Embedder:
    """The start that members give."""
    config, train = UnifyConfig(), np.flatnonzero(context.images.is_train)
    targets = learning_targets(context, members, config)
    found = embedder_of_members(context, fit_target_map(context, members, config), targets, train)
    assert found is not None
    return found


@pytest.mark.parametrize("hidden", [True, False])
def test_it_sums_what_the_members_heads_give(shop: Shop, second: Member, linear: list[Member], hidden: bool) -> None:
    work, targets = shop.context, fitted(shop, [shop.joint, second] if hidden else linear)
    model = joined(work, targets.members)
    train = np.flatnonzero(work.images.is_train)
    total = np.zeros((72, targets.size))
    for member, matrices in zip(targets.members, targets.matrices, strict=True):
        embedder = member.embedders[0]
        with torch.no_grad():
            features = work.features.source.load(shop.everything, np.zeros(72, np.int64))
            outputs = embedder.head(features).numpy().astype(np.float64)
        total += outputs @ matrices[0] / np.linalg.norm(outputs[train], axis=1).mean()
    np.testing.assert_allclose(work.features.source.embed_all(model, shop.everything), unit(total), atol=1e-4)
    own = [sum(member.embedders[0].config.hidden_sizes) for member in targets.members]
    assert model.config.hidden_sizes == ((sum(own),) if hidden else ())
    assert model.config.batch_norm


def test_the_training_goes_on_from_there(shop: Shop, second: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    work, members, jobs = shop.context, [shop.joint, second], list[TrainingJob]()
    monkeypatch.setattr(type(work.stages), "learn", lambda self, name, job, folder: jobs.append(job) or {})
    config = work.recipe.unify
    for start in ("members", "random"):
        with contextlib.suppress(KeyError):  # the record is empty
            train_unified(work, members, name="start", config=replace(config, start=start))  # type: ignore[arg-type]
    started, random = jobs
    for name, tensor in joined(work, members).state_dict().items():
        torch.testing.assert_close(started.embedder.state_dict()[name], tensor)
    assert (started.starts_trained, random.starts_trained) == (True, False)
    assert random.embedder.config.hidden_sizes == work.recipe.model.hidden_sizes
    rates = [job.loop.learning_rate for job in jobs]
    assert rates == [0.25 * config.loop.learning_rate, config.loop.learning_rate]


def test_where_the_base_network_learns_it_starts_from_their_mean(
    catalogue: Catalogue, recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(recipe, base_network_learns="last_blocks", last_blocks=1)
    work = RunContext(Run(tmp_path), catalogue, recipe)
    models = [train_joint(work, loss, 120) for loss in ("triplet", "proxy-nca")]
    members = [Member(name=f"joint:{model.name}", title="", models=(model,)) for model in models]
    own = [member.embedders[0] for member in members]
    everything = np.arange(len(catalogue))
    model, soup = joined(work, members), greedy_soup(own, lambda embedder: float(embedder in own))
    assert soup is own[0], "the mean of the two does worse"

    mean = greedy_soup(own, None)
    for name, value in mean.state_dict().items():
        if value.is_floating_point():
            first, second = (embedder.state_dict()[name] for embedder in own)
            torch.testing.assert_close(value, (first + second) / 2)
    assert work.features.source.embed_all(mean, everything).shape == (len(everything), recipe.model.size)
    assert any(
        all(
            value.equal(model.base_network.state_dict()[name]) for name, value in each.base_network.state_dict().items()
        )
        for each in (*own, mean)
    ), "the base network is that of the better one or of both"
    # up to a rotation towards the targets it gives what the mean gives
    vectors = work.features.source.embed_all(model, everything)
    alike = [work.features.source.embed_all(each, everything) for each in (*own, mean)]
    assert min(np.abs(vectors @ vectors.T - each @ each.T).max() for each in alike) < 5e-3
