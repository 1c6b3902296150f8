"""The training loop: plain PyTorch, resumable to the bit.

Everything random in step n (its batch, its views, dropout) is a function of (seed, n). So a checkpoint needs
no generator states, and a run that is killed and started again walks the very same path.
"""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import math
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from univert.core.errors import TrainingError
from univert.core.files import write_atomic
from univert.core.terminal import progress_bar
from univert.data.samplers import Positions, Sampler, step_rng
from univert.models.config import BaseNetworkLearns
from univert.training.averaging import back_to_start
from univert.training.jobs import TrainingJob
from univert.training.label_config import LabelLoopConfig
from univert.training.optimisers import Optimisers, parameter_groups, sparse_parameters
from univert.training.sources import Source

WARMUP = 0.1
"""Share of the steps during which the learning rates rise from zero, and the base network waits for the head."""
CLIP_NORM = 5.0
"""Largest length of the model's gradient; proxies are not clipped."""
CHECKPOINT_EVERY_SECONDS = 10.0
LOG_EVERY_STEPS = 20
DIVERGED_FACTOR = 1e3
RATES = {"head": "learning_rate", "base network": "base_network_learning_rate", "proxies": "proxy_learning_rate"}
"""By what learns, the setting of its learning rate."""
Log = Callable[[str, float, int], None]
OpenLog = Callable[[int], contextlib.AbstractContextManager[Log]]


@dataclass
class History:
    """What a training went through; curves are lists of [step, value].

    `start_share` is how much of the start is in the weights that were kept.
    """

    step: int = 0
    best_score: float | None = None
    best_step: int = 0
    start_share: float = 0.0
    seconds: float = 0.0
    loss_curve: list[list[float]] = field(default_factory=list)
    score_curve: list[list[float]] = field(default_factory=list)
    monitor_curves: dict[str, list[list[float]]] = field(default_factory=dict)


def fit(
    job: TrainingJob,
    source: Source,
    *,
    name: str,
    seed: int,
    folder: Path | None,
    base_network_learns: BaseNetworkLearns = "no",
    last_blocks: int = 1,
    open_log: OpenLog | None = None,
) -> History:
    """Train to the last step, and leave the weights of the best validation score in the model.

    Args:
        job: what is to be learned. Without a score the last weights stay.
        source: turns positions and views into embeddings.
        name: for messages, such as `specialists/dresses`.
        seed: of batches, views and dropout.
        folder: `checkpoint.pt` lives here; if it exists, training goes on from it. None: no checkpoint, for a training
            of seconds.
        base_network_learns: which part of the base network learns besides the head.
        last_blocks: how many of its blocks do, where that is `last_blocks`.
        open_log: from the first step that is still to come, opens a log that is called with (name, value, step) for
            every scalar worth watching.

    Raises:
        TrainingError: the loss is not finite or grew a thousandfold, the embeddings are NaN, or the disk is full.
        KeyboardInterrupt: passed on; the last checkpoint stands.
    """
    loop = job.loop.settled(learns=base_network_learns != "no")
    config = loop if isinstance(loop, LabelLoopConfig) else LabelLoopConfig(**asdict(loop))
    learning = job.embedder.trainable(base_network_learns, last_blocks)
    model = {group["name"]: group["params"] for group in learning}
    model["head"] = [*model.get("head", []), *job.objective.head_parameters()]
    groups = parameter_groups(model, list(job.objective.proxy_parameters()), config)
    optimiser = Optimisers(groups, config.optimiser, list(sparse_parameters(job.objective)))
    training = _Training(job, source, optimiser, name, folder and folder / "checkpoint.pt", seed)
    training.whole = base_network_learns != "no"
    start = training.weights() if job.starts_trained else None
    history = training.resume()
    total_steps = loop.steps(job.sampler.steps_per_epoch)
    look_every = max(1, math.ceil(total_steps / config.evaluations))
    job.embedder.train()
    with (
        torch.random.fork_rng(),
        progress_bar(name, total_steps, unit="steps")
        if folder
        else contextlib.nullcontext(lambda steps: None) as advance,
        open_log(history.step + 1) if open_log else contextlib.nullcontext() as log,
    ):
        advance(history.step)
        if job.starts_trained and not history.step:
            training.look(log)
        while history.step < total_steps:
            started = time.perf_counter()
            _set_learning_rates(optimiser.groups, history.step, total_steps, config)
            _seed(seed * 1_000_003 + history.step, job.embedder.device)
            training.take_step()
            look = history.step == total_steps or history.step % look_every == 0
            told = look or len(training.pending) == LOG_EVERY_STEPS
            if told:
                training.record_losses(log)
            if look:
                training.refuse_nan_embeddings()
                training.look(log)
            history.seconds += time.perf_counter() - started
            if told and training.is_due():
                training.save()
            advance(1)
    training.restore_best()
    if not job.score:
        history.best_step = history.step
    if start and job.score and history.best_score is not None and history.best_step > 0:  # at step 0 it is the start
        kept = back_to_start(job.embedder, start, job.score, history.best_score)
        history.best_score, history.start_share = kept
    return history


def _draw(sampler: Sampler, views: int, seed: int, step: int) -> tuple[Positions, Positions]:
    """Positions and views of a step."""
    positions = sampler.batch(step)
    return positions, step_rng(seed, 2, step).integers(0, views + 1, size=len(positions))


def _seed(value: int, device: torch.device) -> None:
    """As `torch.manual_seed`, which on a machine without a GPU notes the whole call stack every time."""
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.manual_seed(value)


def _set_learning_rates(groups: list[dict[str, Any]], step: int, total_steps: int, config: LabelLoopConfig) -> None:
    """Each group's peak times a linear warm-up, then a half cosine to zero, or exponential decay."""
    done = step / total_steps
    rise = min(1.0, (step + 1) / max(1.0, WARMUP * total_steps))
    if config.decay is not None and config.decay_every_steps is not None:
        fall: float = config.decay ** (step / config.decay_every_steps)
    else:
        fall = 0.5 * (1 + math.cos(math.pi * max(0.0, done - WARMUP) / (1 - WARMUP)))
    for group in groups:
        waits = group["name"] == "base network" and done < WARMUP
        group["lr"] = 0.0 if waits else group["peak"] * rise * fall


class _Training:
    """A model in training: all that learns, as one thing to move, to watch, to save and to bring back.

    Attributes:
        history: what it went through.
        pending: losses of the steps since they were last recorded.
        whole: the weights of the base network are saved, too.
    """

    whole = False

    def __init__(
        self, job: TrainingJob, source: Source, optimiser: Optimisers, name: str, path: Path | None, seed: int
    ) -> None:
        self._job, self._source, self._optimiser, self._name, self._path = job, source, optimiser, name, path
        self._batches = lru_cache(maxsize=2)(partial(_draw, job.sampler, source.views, seed))  # this step's, the next's
        self.history, self.pending = History(), list[torch.Tensor]()
        self._best: dict[str, torch.Tensor] | None = None
        self._saved_at = time.monotonic()

    def take_step(self) -> None:
        """Learn from a batch."""
        try:
            self.pending.append(self._step(self.history.step))
        except ValueError:  # miners and proxies refuse NaN, but know neither stage nor step
            self.refuse_nan_embeddings()
            raise
        self.history.step += 1

    def _step(self, step: int) -> torch.Tensor:
        job, optimiser, device = self._job, self._optimiser, self._job.embedder.device
        positions, views = self._batches(step)
        with torch.autocast(device_type=device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            embeddings = self._source.embed(job.embedder, positions, views)
        loss: torch.Tensor = job.objective(embeddings.float(), positions, views)
        self._source.prefetch(*self._batches(step + 1))
        optimiser.zero_grad()
        loss.backward()
        model_groups = [group["params"] for group in optimiser.groups if group["name"] != "proxies"]
        nn.utils.clip_grad_norm_(itertools.chain(*model_groups), CLIP_NORM)
        optimiser.step()
        for parameter, rows in job.objective.after_step(step, self._embed_all):
            optimiser.forget_rows(parameter, rows)
        return loss.detach()

    def _embed_all(self, positions: Positions) -> Any:
        vectors = self._source.embed_all(self._job.embedder, positions)
        self._job.embedder.train()
        return vectors

    def record_losses(self, log: Log | None) -> None:
        """Note the mean of the pending losses, and refuse what has grown beyond all measure."""
        losses, history = torch.stack(self.pending), self.history
        value, before = float(losses.mean()), history.step - len(self.pending)
        self.pending.clear()
        limit = DIVERGED_FACTOR * max(1.0, abs(history.loss_curve[0][1] if history.loss_curve else value))
        if not abs(value) <= limit:
            step, loss = next((n, loss) for n, loss in enumerate(losses.tolist(), before + 1) if not abs(loss) <= limit)
            raise self._diverged(f"the loss is {'NaN' if math.isnan(loss) else f'{loss:g}'} since step {step}")
        history.loss_curve.append([history.step, value])
        if log:
            log("loss", value, history.step)

    def refuse_nan_embeddings(self) -> None:
        """Refuse to go on with a model whose weights are of no use by now, whatever the loss was before."""
        vectors = self._embed_all(self._batches(max(0, self.history.step - 1))[0][:8])
        if not np.isfinite(vectors).all():
            raise self._diverged(f"the model's embeddings are NaN after step {self.history.step}")

    def _diverged(self, what: str) -> TrainingError:
        learning = {group["name"] for group in self._optimiser.groups}
        rates = " or ".join(f"{self._job.settings}.{rate}" for part, rate in RATES.items() if part in learning)
        return TrainingError(f"{self._name}: {what}; lower {rates} and run again; finished stages are kept")

    def look(self, log: Log | None) -> None:
        """Measure the model as it stands, and keep it if it is the best so far."""
        job, history = self._job, self.history
        job.embedder.eval()
        seen = {**job.objective.figures(), **(job.monitor() if job.monitor else {})}
        if job.score:
            score = seen["validation"] = job.score()
            history.score_curve.append([history.step, score])
            if history.best_score is None or score > history.best_score:
                history.best_score, history.best_step = score, history.step
                self._best = self.weights()
        job.embedder.train()
        for name, value in seen.items():
            if name != "validation":
                history.monitor_curves.setdefault(name, []).append([history.step, value])
            if log:
                log(name, value, history.step)

    def resume(self) -> History:
        """Bring back the checkpoint, if there is one.

        Raises:
            TrainingError: the file is there but is not a checkpoint.
        """
        if self._path is None or not self._path.exists():
            return self.history
        try:
            saved = torch.load(self._path, map_location="cpu", weights_only=True)
            self._job.embedder.load_state_dict(saved["model"], strict=False)
            self._job.objective.load_state_dict(saved["objective"])
            self._optimiser.load_state_dict(saved["optimiser"])
            self._best = saved["best"]
            self.history = History(**saved["history"])
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TrainingError(
                f"{self._path}: not a readable checkpoint ({reason}); delete it to start this stage anew"
            ) from None
        return self.history

    def is_due(self) -> bool:
        """Whether it is time to save; what a kill costs is the time since."""
        return self._path is not None and time.monotonic() - self._saved_at >= CHECKPOINT_EVERY_SECONDS

    def save(self) -> None:
        """Write all of it; the old file stays until the new one is whole.

        Raises:
            TrainingError: the disk is full; the previous checkpoint is untouched.
        """
        assert self._path is not None
        content = io.BytesIO()
        state = {
            "model": self._learning(),
            "objective": self._job.objective.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "best": self._best,
            "history": asdict(self.history),
        }
        torch.save(state, content)
        try:
            write_atomic(self._path, content.getvalue())
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise TrainingError(
                f"{self._path}: the disk is full; the last checkpoint is kept: free some space and run the same "
                "command again"
            ) from error
        self._saved_at = time.monotonic()

    def restore_best(self) -> None:
        """Put the kept copy back, and leave the model ready for inference."""
        if self._best is not None:
            self._job.embedder.load_state_dict(self._best, strict=False)
        self._job.embedder.eval()

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of all that may learn of the model."""
        return {name: value.detach().clone() for name, value in self._learning().items()}

    def _learning(self) -> dict[str, torch.Tensor]:
        """The model's state, without a base network that never changes."""
        state = self._job.embedder.state_dict()
        return {name: value for name, value in state.items() if self.whole or not name.startswith("base_network.")}
