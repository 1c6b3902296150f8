"""The training loop: plain PyTorch, resumable to the bit.

Everything random in step n (its batch, its views, dropout) is a function of (seed, n). So a checkpoint needs
no generator states, and a run that is killed and started again walks the very same path.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from univert.core.errors import TrainingError
from univert.core.terminal import progress_bar
from univert.data.samplers import Sampler, step_rng
from univert.models.embedder import Embedder
from univert.training.checkpoint import load_checkpoint, save_checkpoint
from univert.training.label_config import LoopConfig
from univert.training.objectives import Objective
from univert.training.optimisers import Optimisers, parameter_groups, sparse_parameters
from univert.training.recipe import Trunk
from univert.training.sources import Source

LOG_EVERY_STEPS = 20
DIVERGED_FACTOR = 1e3
Log = Callable[[str, float, int], None]
OpenLog = Callable[[int], contextlib.AbstractContextManager[Log]]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be learned.

    Attributes:
        name: for messages, such as `specialists/dresses`.
        embedder: the model; it learns in place.
        trunk: which part of it learns besides the head.
        partial_blocks: how many blocks do, where `trunk` is `partial`.
        objective: called with (embeddings, positions, views), gives the loss; its parameters learn too.
        sampler: the batches.
        source: turns positions and views into embeddings.
        score: validation score of the model as it stands, larger is better; None where there is nothing to
            validate on: then training runs to its end.
        monitor: further figures of the model as it stands, watched and never acted upon.
        starts_trained: the model knows something already, so its score before the first step counts.
    """

    name: str
    embedder: Embedder
    trunk: Trunk
    partial_blocks: int
    objective: Objective
    sampler: Sampler
    source: Source
    score: Callable[[], float] | None
    monitor: Callable[[], Mapping[str, float]] | None = None
    starts_trained: bool = False


@dataclass
class History:
    """What a training went through; curves are lists of [step, value]."""

    step: int = 0
    best_score: float | None = None
    best_step: int = 0
    looks_without_better: int = 0
    seconds: float = 0.0
    finished: bool = False
    loss_curve: list[list[float]] = field(default_factory=list)
    score_curve: list[list[float]] = field(default_factory=list)
    monitor_curves: dict[str, list[list[float]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A finished training.

    Attributes:
        steps: optimiser steps taken.
        image_presentations: images shown to the model, counted with repetition.
        history: curves, best score, time.
    """

    steps: int
    image_presentations: int
    history: History


def fit(task: Task, config: LoopConfig, *, seed: int, folder: Path, open_log: OpenLog | None = None) -> Fit:
    """Train until the epochs or the patience run out; leave the weights of the best validation score in the model.

    Args:
        task: what is to be learned.
        config: how.
        seed: of batches, views and dropout.
        folder: `checkpoint.safetensors` lives here; if it exists, training goes on from it.
        open_log: from the first step that is still to come, opens a log that is called with (name, value, step) for
            every scalar worth watching.

    Raises:
        TrainingError: the loss is not finite or grew a thousandfold, or the disk is full.
        KeyboardInterrupt: passed on; the last checkpoint stands.
    """
    trainable = task.embedder.trainable(task.trunk, partial_blocks=task.partial_blocks)
    model = {group["name"]: group["params"] for group in trainable}
    groups = parameter_groups(model, list(task.objective.parameters()), config)
    optimiser = Optimisers(groups, config.optimiser, list(sparse_parameters(task.objective)))
    state = _State(task, optimiser, folder / "checkpoint.safetensors")
    history = state.resume()
    total_steps = max(config.epochs * task.sampler.steps_per_epoch, config.min_steps)
    look_every = max(1, math.ceil(total_steps / config.evaluations))
    pending: list[torch.Tensor] = []
    task.embedder.train()
    with (
        torch.random.fork_rng(),
        progress_bar(task.name, total_steps, unit="steps") as advance,
        open_log(history.step + 1) if open_log else contextlib.nullcontext() as log,
    ):
        advance(history.step)
        if task.starts_trained and not history.step:
            _look(task, state, history, log)
        while not history.finished:
            started = time.perf_counter()
            rate = _rate(history.step, total_steps, config)
            _set_learning_rates(optimiser.groups, rate, history.step / total_steps, config)
            pending.append(_take_step(task, optimiser, history.step, seed, config))
            history.step += 1
            last = history.step == total_steps
            look = last or history.step % look_every == 0
            save = look or history.step % config.checkpoint_every_steps == 0
            if save or len(pending) == LOG_EVERY_STEPS:
                _record_losses(task.name, history, pending, config, log)
            if look:
                _look(task, state, history, log)
            history.finished = last or history.looks_without_better >= config.patience
            history.seconds += time.perf_counter() - started
            if save:
                state.save(history)
            advance(1)
    state.restore_best()
    return Fit(steps=history.step, image_presentations=history.step * task.sampler.batch_size, history=history)


def _take_step(task: Task, optimiser: Optimisers, step: int, seed: int, config: LoopConfig) -> torch.Tensor:
    torch.manual_seed(seed * 1_000_003 + step)
    positions, views = _batch(task, step, seed)
    with torch.autocast(device_type=task.embedder.device.type, dtype=torch.bfloat16, enabled=_mixed(task)):
        embeddings = task.source.embed(task.embedder, positions, views)
    loss: torch.Tensor = task.objective(embeddings.float(), positions, views)
    task.source.prefetch(*_batch(task, step + 1, seed))
    optimiser.zero_grad()
    loss.backward()
    model_groups = [group["params"] for group in optimiser.groups if group["name"] != "proxies"]
    nn.utils.clip_grad_norm_(itertools.chain(*model_groups), config.clip_norm)
    optimiser.step()
    for parameter, rows in task.objective.after_step(step, partial(_embed_all, task)):
        optimiser.forget_rows(parameter, rows)
    return loss.detach()


def _embed_all(task: Task, positions: Any) -> Any:
    vectors = task.source.embed_all(task.embedder, positions)
    task.embedder.train()
    return vectors


def _batch(task: Task, step: int, seed: int) -> tuple[Any, Any]:
    positions = task.sampler.batch(step)
    views = step_rng(seed, 2, step).integers(0, task.source.views + 1, size=len(positions))
    return positions, views


def _mixed(task: Task) -> bool:
    return task.embedder.device.type == "cuda"


def _rate(step: int, total_steps: int, config: LoopConfig) -> float:
    """The share of the peak learning rate in force: linear warm-up, then a half cosine to zero, or exponential."""
    done = step / total_steps
    rise = min(1.0, (step + 1) / max(1.0, config.warmup * total_steps))
    if config.decay is not None and config.decay_every_steps is not None:
        fall: float = config.decay ** (step / config.decay_every_steps)
    else:
        fall = 0.5 * (1 + math.cos(math.pi * max(0.0, done - config.warmup) / (1 - config.warmup)))
    return rise * fall


def _set_learning_rates(groups: list[dict[str, Any]], rate: float, done: float, config: LoopConfig) -> None:
    """Each group's peak times the rate; the trunk waits until the head has warmed up."""
    for group in groups:
        waits = group["name"] == "trunk" and done < config.head_warmup
        group["lr"] = 0.0 if waits else group["peak"] * rate


def _record_losses(
    name: str, history: History, pending: list[torch.Tensor], config: LoopConfig, log: Log | None
) -> None:
    value = float(torch.stack(pending).mean())
    pending.clear()
    first = history.loss_curve[0][1] if history.loss_curve else value
    if not math.isfinite(value) or abs(value) > DIVERGED_FACTOR * max(1.0, abs(first)):
        raise TrainingError(
            f"{name}: the loss became {value:g} before step {history.step}; finished stages are kept: lower "
            f"learning_rate (now {config.learning_rate:g}) or clip_norm (now {config.clip_norm:g}) and run again"
        )
    history.loss_curve.append([history.step, value])
    if log:
        log("loss", value, history.step)


def _look(task: Task, state: _State, history: History, log: Log | None) -> None:
    task.embedder.eval()
    seen = {**task.objective.figures(), **(task.monitor() if task.monitor else {})}
    if task.score:
        score = seen["validation"] = task.score()
        history.score_curve.append([history.step, score])
        if history.best_score is None or score > history.best_score:
            history.best_score, history.best_step, history.looks_without_better = score, history.step, 0
            state.remember_best()
        else:
            history.looks_without_better += 1
    task.embedder.train()
    for name, value in seen.items():
        if name != "validation":
            history.monitor_curves.setdefault(name, []).append([history.step, value])
        if log:
            log(name, value, history.step)


class _State:
    """All that learns, as one thing to save and bring back."""

    def __init__(self, task: Task, optimiser: Optimisers, path: Path) -> None:
        self._task, self._optimiser, self._path = task, optimiser, path
        self._best: dict[str, torch.Tensor] | None = None

    def resume(self) -> History:
        saved = load_checkpoint(self._path)
        if saved is None:
            return History()
        self._task.embedder.load_state_dict(saved["model"], strict=False)
        self._task.objective.load_state_dict(saved["objective"])
        self._optimiser.load_state_dict(saved["optimiser"])
        self._best = saved["best"]
        return History(**saved["history"])

    def save(self, history: History) -> None:
        save_checkpoint(
            self._path,
            {
                "model": self._learning(),
                "objective": self._task.objective.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "best": self._best,
                "history": asdict(history),
            },
        )

    def remember_best(self) -> None:
        self._best = {name: value.detach().clone() for name, value in self._learning().items()}

    def restore_best(self) -> None:
        if self._best is not None:
            self._task.embedder.load_state_dict(self._best, strict=False)
        self._task.embedder.eval()

    def _learning(self) -> dict[str, torch.Tensor]:
        """The model's state without a frozen base network, which never changes."""
        state = self._task.embedder.state_dict()
        frozen = "trunk." if self._task.trunk == "frozen" else None
        return {name: value for name, value in state.items() if not (frozen and name.startswith(frozen))}
