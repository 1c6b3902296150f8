"""Mining on the drawn catalogue through a real index, and training on what it finds: resumable to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from univert.core.errors import BadInputError
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.data.duplicates import NearDuplicates, picture_hashes
from univert.data.samplers import PKSampler, StrongNegativeSampler
from univert.data.strong_negatives import StrongNegatives
from univert.losses.miners import DistanceWeightedMiner, MinedLoss
from univert.losses.triplet_margin_loss import TripletMarginLoss
from univert.training import loop as training_loop
from univert.training.jobs import TrainingJob
from univert.training.label_training import labelled_products
from univert.training.loop import Fit, fit
from univert.training.mining import ReminingSampler, miner_of
from univert.training.objectives import LabelObjective
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext


@pytest.fixture
def context(catalogue: Catalogue, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunContext:
    monkeypatch.setattr(training_loop, "CHECKPOINT_EVERY_SECONDS", 0)
    loop = replace(recipe.specialists.loop, min_steps=14)
    recipe = replace(recipe, specialists=replace(recipe.specialists, loop=loop))
    return RunContext(Run(tmp_path / "run"), catalogue, recipe)


class Interrupted(nn.Module):
    """A loss that Ctrl-C meets at some step."""

    def __init__(self, loss: nn.Module, step: int) -> None:
        super().__init__()
        self.loss, self.left = loss, step

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        loss: Tensor = self.loss(embeddings, labels)
        return loss


def train(context: RunContext, loss: nn.Module, folder: Path) -> tuple[Fit, Tensor, ReminingSampler]:
    products = labelled_products(context, context.images.is_train)
    embedder = context.new_embedder()
    near = NearDuplicates(hashes=picture_hashes(context.images.catalogue))
    sampler = ReminingSampler(
        miner_of(embedder, context.features.source, products, context.images.verticals, margin=0.5, protect=near),
        lambda mined: StrongNegativeSampler(
            products, mined, batch_size=12, images_per_product=3, negatives_per_anchor=1
        ),
        every_steps=5,
        folder=folder,
    )
    loop, objective = context.recipe.specialists.loop, LabelObjective(loss, products)
    job = TrainingJob(embedder=embedder, objective=objective, sampler=sampler, loop=loop)
    job = replace(job, score=context.stages.scorer(job))
    done = fit(job, context.features.source, name="test", seed=0, folder=folder)
    head = torch.cat([v.detach().float().flatten() for v in embedder.head.state_dict().values()])
    return done, head, sampler


def test_mined_on_the_drawn_catalogue_and_trained_on(context: RunContext, tmp_path: Path) -> None:
    done, _, sampler = train(context, TripletMarginLoss(0.5), tmp_path / "a")
    assert done.steps == 14
    assert np.isfinite([value for _, value in done.history.loss_curve]).all()
    paths = [tmp_path / "a" / f"strong-negatives-{number}.safetensors" for number in range(3)]
    assert sorted((tmp_path / "a").glob("strong-*")) == paths
    products, verticals = labelled_products(context, context.images.is_train), context.images.verticals
    tables = [table for path in paths if (table := StrongNegatives.load(path))]
    assert any(len(table) for table in tables)
    for table in tables:
        assert 0 < table.statistics.share <= 1 or not len(table)
        assert (products[table.anchors] == products[table.positives]).all()
        for anchor, negatives in zip(table.anchors, table.negatives, strict=True):
            negatives = negatives[negatives >= 0]
            assert (products[negatives] >= 0).all()
            assert (products[negatives] != products[anchor]).all()
            assert (verticals[negatives] == verticals[anchor]).all()
    assert any(not np.array_equal(tables[0].negatives, table.negatives) for table in tables[1:])
    for step in range(14):
        assert (products[sampler.batch(step)] >= 0).all()


@pytest.mark.parametrize("step", [2, 5, 11])
def test_interrupted_anywhere_it_ends_with_the_same_weights(context: RunContext, tmp_path: Path, step: int) -> None:
    def loss() -> nn.Module:
        return MinedLoss(TripletMarginLoss(0.5, mining="all"), DistanceWeightedMiner())

    _, expected, _ = train(context, loss(), tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        train(context, Interrupted(loss(), step), tmp_path / "b")
    done, found, _ = train(context, Interrupted(loss(), 10**6), tmp_path / "b")
    assert done.steps == 14
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_table_is_mined_once_and_kept(tmp_path: Path) -> None:
    products = np.repeat(np.arange(6), 2)
    mined = []

    def mine() -> StrongNegatives:
        mined.append(len(mined))
        return StrongNegatives.none()

    def sampler() -> ReminingSampler:
        return ReminingSampler(
            mine,
            lambda table: StrongNegativeSampler(products, table, batch_size=8, images_per_product=2),
            every_steps=10,
            folder=tmp_path,
        )

    first = sampler()
    batches = [first.batch(step) for step in range(25)]
    assert len(mined) == 3
    again = sampler()
    for step in reversed(range(25)):
        np.testing.assert_array_equal(again.batch(step), batches[step])
    assert len(mined) == 3
    plain = PKSampler(products, products_per_batch=4, images_per_product=2)
    assert (first.batch_size, len(batches[0])) == (plain.batch_size, plain.batch_size)
    with pytest.raises(BadInputError, match="every_steps"):
        ReminingSampler(mine, lambda table: plain, every_steps=0, folder=tmp_path)


def test_mining_leaves_the_model_as_it_was(context: RunContext) -> None:
    products = labelled_products(context, context.images.is_train)
    embedder = context.new_embedder()
    mine = miner_of(embedder, context.features.source, products)
    for training in (True, False):
        embedder.train(training)
        before = torch.random.get_rng_state()
        mine()
        assert embedder.training is training
        assert torch.equal(torch.random.get_rng_state(), before)
