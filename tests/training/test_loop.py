import errno
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses as peer
from torch import Tensor, nn

from univert.core.errors import BadInputError, TrainingError
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.data.samplers import PKSampler
from univert.losses.proxy_nca_loss import ProxyNCALoss
from univert.losses.triplet_margin_loss import TripletMarginLoss
from univert.main_job import train
from univert.models.config import BaseNetworkLearns
from univert.training import loop as training_loop
from univert.training.combine.config import CombineConfig
from univert.training.combine.groups import combine
from univert.training.jobs import TrainingJob
from univert.training.label_config import LabelLoopConfig, LoopConfig
from univert.training.label_training import labelled_products
from univert.training.loop import History, _set_learning_rates, fit
from univert.training.objectives import EmbedAll, LabelObjective, MovedRows
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.specialists import train_joint, train_specialist
from univert.training.targets.members import Member
from univert.training.unify import train_unified


@pytest.fixture(autouse=True)
def checkpoints_after_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_loop, "CHECKPOINT_EVERY_SECONDS", 0)


def job_of(context: RunContext, loss: nn.Module, loop: LabelLoopConfig | None = None) -> TrainingJob:
    products = labelled_products(context, context.images.is_train)
    job = TrainingJob(
        embedder=context.new_embedder(),
        objective=LabelObjective(loss, products),
        sampler=PKSampler(products, products_per_batch=4, images_per_product=3),
        loop=loop or context.recipe.specialists.loop,
    )
    return replace(job, score=context.stages.scorer(job))


def run(
    context: RunContext, loss: nn.Module, folder: Path, loop: LabelLoopConfig | None = None
) -> tuple[History, Tensor]:
    job = job_of(context, loss, loop)
    done = fit(job, context.features.source, name="test", seed=0, folder=folder)
    return done, torch.cat([v.detach().float().flatten() for v in job.embedder.head.state_dict().values()])


def count() -> int:
    """Labelled training products of the drawn catalogue."""
    return 8


class Poison(nn.Module):
    """A loss that is fine until a step, then is not; or that interrupts, as Ctrl-C does."""

    def __init__(self, step: int, value: float | None) -> None:
        super().__init__()
        self.inner, self.left, self.value = TripletMarginLoss(0.5), step, value

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0 and self.value is None:
            raise KeyboardInterrupt
        loss: Tensor = self.inner(embeddings, labels)
        return loss * self.value if self.left < 0 and self.value is not None else loss


def test_learning_lowers_the_loss(context: RunContext, tmp_path: Path) -> None:
    products = labelled_products(context, context.images.is_train)
    assert products.max() + 1 == count()
    loop = replace(context.recipe.specialists.loop, min_steps=80, learning_rate=1e-2)
    done, _ = run(context, ProxyNCALoss(count(), 8, seed=0), tmp_path / "a", loop)
    first, last = done.loss_curve[0][1], done.loss_curve[-1][1]
    assert last < 0.7 * first


def test_losses_of_pytorch_metric_learning_train(context: RunContext, tmp_path: Path) -> None:
    done, _ = run(context, peer.ProxyNCALoss(count(), 8), tmp_path / "a")
    assert np.isfinite([value for _, value in done.loss_curve]).all()


@pytest.mark.parametrize("optimiser", ["adamw", "rmsprop"])
def test_after_ctrl_c_the_next_run_goes_on_to_the_same_end(context: RunContext, tmp_path: Path, optimiser: str) -> None:
    loop = replace(context.recipe.specialists.loop, optimiser=optimiser)
    _, expected = run(context, TripletMarginLoss(0.5), tmp_path / "a", loop)
    with pytest.raises(KeyboardInterrupt):
        run(context, Poison(8, None), tmp_path / "b", loop)
    done, found = run(context, Poison(10**6, 1.0), tmp_path / "b", loop)
    assert done.step == 12
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(("value", "words"), [(float("nan"), "NaN"), (float("inf"), "inf"), (1e9, r"[\d.]+e\+08")])
def test_a_loss_that_explodes_is_named_and_the_checkpoint_kept(
    context: RunContext, tmp_path: Path, value: float, words: str
) -> None:
    with pytest.raises(TrainingError, match=rf"test: the loss is {words} since step 5; lower loop.learning_rate and"):
        run(context, Poison(4, value), tmp_path / "a")
    done, _ = run(context, Poison(10**6, 1.0), tmp_path / "a")
    assert done.step == 12
    assert np.isfinite([loss for _, loss in done.loss_curve]).all()


@pytest.mark.parametrize("looks", [12, 1])
def test_whatever_trains_names_stage_step_and_setting(
    catalogue: Catalogue, recipe: Recipe, tmp_path: Path, looks: int
) -> None:
    """The rate is beyond all measure: weights are lost in the first step, though its loss was still fine."""
    wild = replace(recipe.specialists.loop, learning_rate=1e38, evaluations=looks)
    unify = replace(recipe.unify.loop, learning_rate=1e38, evaluations=looks)
    bad = RunContext(
        Run(tmp_path),
        catalogue,
        replace(
            recipe,
            specialists=replace(recipe.specialists, loop=wild),
            unify=replace(recipe.unify, loop=unify),
            combine=CombineConfig(mode="probe"),
        ),
    )
    own = r"NaN (since|after) step [12]; lower specialists\.loop\.learning_rate"
    with pytest.raises(TrainingError, match=rf"^last_step/discs: the (loss is|model's embeddings are) {own} and run"):
        train_specialist(bad, "discs")
    with pytest.raises(TrainingError, match=rf"^joint/proxy_nca: .* {own} or specialists.loop.proxy_learning_rate and"):
        train_joint(bad, "proxy-nca", 100)
    with pytest.raises(TrainingError, match=rf"^probe/discs: .* {own} and"):
        combine(bad)
    good = Member.named(
        "joint:triplet", train_joint(RunContext(Run(tmp_path / "good"), catalogue, recipe), "triplet", 24)
    )
    with pytest.raises(
        TrainingError, match=r"^unified: .* NaN (since|after) step [12]; lower unify\.loop\.learning_rate"
    ):
        train_unified(bad, [good], name="unified", config=replace(bad.recipe.unify, start="random"))


class Fussy(LabelObjective):
    """After each step it looks at all images, as dynamic proxies and miners do, and refuses what they refuse."""

    def after_step(self, step: int, embed_all: EmbedAll) -> list[MovedRows]:
        if not np.isfinite(embed_all(np.arange(2))).all():
            raise BadInputError("rows must be of length 1")
        return []


def test_the_part_that_refuses_nan_is_not_the_one_to_blame(context: RunContext, tmp_path: Path) -> None:
    job = job_of(context, TripletMarginLoss(0.5), replace(context.recipe.specialists.loop, learning_rate=1e38))
    job = replace(job, objective=Fussy(TripletMarginLoss(0.5), labelled_products(context, context.images.is_train)))
    with pytest.raises(TrainingError, match=r"test: the model's embeddings are NaN after step \d; lower loop"):
        fit(job, context.features.source, name="test", seed=0, folder=tmp_path)


def test_the_best_weights_win(context: RunContext, tmp_path: Path) -> None:
    loop = replace(context.recipe.specialists.loop, min_steps=60, evaluations=6)
    job = job_of(context, TripletMarginLoss(0.5), loop)
    scores = iter([0.5, 0.9, 0.4, 0.3, 0.2, 0.1])
    states = []

    def score() -> float:
        states.append({name: value.clone() for name, value in job.embedder.head.state_dict().items()})
        return next(scores)

    done = fit(replace(job, score=score), context.features.source, name="test", seed=0, folder=tmp_path)
    assert (done.step, done.best_step) == (60, 20)
    for name, value in job.embedder.head.state_dict().items():
        assert value.equal(states[1][name])


def rates(config: LabelLoopConfig) -> np.ndarray:
    """Head, base network and proxy rates of 100 steps."""
    groups = [{"name": "head", "peak": 1.0}, {"name": "base network", "peak": 1.0}, {"name": "proxies", "peak": 0.5}]
    found = []
    for step in range(100):
        _set_learning_rates(groups, step, 100, config)
        found.append([group["lr"] for group in groups])
    return np.array(found).T


def test_rates_rise_then_sink_and_the_base_network_waits_for_the_head() -> None:
    head, base_network, proxies = rates(LabelLoopConfig())
    np.testing.assert_allclose(head[:10], np.arange(1, 11) / 10)
    assert (np.diff(head[10:]) < 0).all()
    assert head[-1] < 0.001
    assert (base_network[:10] == 0).all()
    np.testing.assert_array_equal(base_network[10:], head[10:])
    np.testing.assert_allclose(proxies, 0.5 * head)


def test_rates_can_sink_by_a_factor_every_so_many_steps() -> None:
    head, _, _ = rates(LabelLoopConfig(decay=0.94, decay_every_steps=10))
    np.testing.assert_allclose(head[10::10], 0.94 ** np.arange(1, 10))
    with pytest.raises(BadInputError, match="belong together"):
        LabelLoopConfig(decay=0.94)


def test_a_broken_checkpoint_is_named(context: RunContext, tmp_path: Path) -> None:
    for content in (b"not a checkpoint", b""):
        (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(TrainingError, match=r"checkpoint\.pt: not a readable checkpoint .*; delete it"):
            run(context, TripletMarginLoss(0.5), tmp_path)


def test_a_full_disk_keeps_the_old_checkpoint(
    context: RunContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected = run(context, TripletMarginLoss(0.5), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(context, Poison(8, None), tmp_path / "cut")
    before = (tmp_path / "cut" / "checkpoint.pt").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(TrainingError, match="disk is full"):
            run(context, TripletMarginLoss(0.5), tmp_path / "cut")
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["checkpoint.pt"]
    assert (tmp_path / "cut" / "checkpoint.pt").read_bytes() == before
    torch.testing.assert_close(run(context, TripletMarginLoss(0.5), tmp_path / "cut")[1], expected, rtol=0, atol=0)


def train_in_a_process(catalogue: str, out: str, recipe: Recipe) -> None:
    training_loop.CHECKPOINT_EVERY_SECONDS = 0
    result = train(catalogue, out, recipe, report=False)
    (Path(out) / "fingerprint").write_text(result.model.fingerprint)


@pytest.mark.parametrize(
    ("learns", "way", "stages"),
    [
        ("no", "ensemble", ("cache", "candidates/ensemble")),
        pytest.param(
            "last_blocks", "specialists", ("last_step/discs", "candidates/specialists"), marks=pytest.mark.slow
        ),
    ],
)
def test_killed_at_any_moment_a_run_ends_with_the_same_weights(
    catalogue: Catalogue,
    recipe: Recipe,
    tmp_path: Path,
    learns: BaseNetworkLearns,
    way: Literal["specialists", "ensemble"],
    stages: tuple[str, ...],
) -> None:
    """SIGKILL a real process in the middle of several stages; start it again until it is through."""
    loop = replace(recipe.specialists.loop, min_steps=24, evaluations=12)
    members = {} if way == "specialists" else {"members": ("specialists", "joint:proxy-nca")}
    recipe = replace(
        recipe,
        base_network_learns=learns,
        specialists=replace(recipe.specialists, loop=loop),
        unify=replace(recipe.unify, way=way, loop=LoopConfig(epochs=1, min_steps=24, batch_size=12), **members),
        evaluation=replace(recipe.evaluation, baselines=()),
    )
    context = multiprocessing.get_context("forkserver")  # imports torch once, then every start is instant
    context.set_forkserver_preload(["univert.main_job"])

    def start(out: Path) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=train_in_a_process, args=(str(catalogue.path), str(out), recipe))
        process.start()
        return process

    start(tmp_path / "whole").join(timeout=120)
    expected = (tmp_path / "whole" / "fingerprint").read_text()
    out, caught = tmp_path / "killed", 0
    for stage in stages:
        process = start(out)
        begun = out / (stage if stage.startswith("cache") else f"checkpoints/{stage}")
        while process.is_alive() and not [*begun.rglob("checkpoint.pt"), *begun.rglob("*.partial")]:
            time.sleep(0.001)
        process.kill()
        process.join()
        caught += process.exitcode == -signal.SIGKILL and not (out / "fingerprint").exists()
    last = start(out)
    last.join(timeout=120)
    assert last.exitcode == 0
    assert caught >= len(stages) - 1, "the run was not caught in the act"
    assert (out / "fingerprint").read_text() == expected
