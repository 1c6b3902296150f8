"""A job, what one model of a run is to learn; and what came of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from univert.data.samplers import Sampler
from univert.models.embedder import Embedder
from univert.training.label_config import LoopConfig
from univert.training.loop import Log
from univert.training.objectives import Objective


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What one model of the run is to learn; see `Task`.

    Attributes:
        embedder: the model, which learns in place.
        objective: the loss and what it looks up.
        sampler: the batches.
        loop: how long, how fast, when to stop.
        among: the images whose validation score counts; None for all.
        score: validation score of the model as it stands; None: MAP@R over the validation images among `among`.
        monitor: further figures to watch; see `Task`.
        starts_trained: see `Task`.
    """

    embedder: Embedder
    objective: Objective
    sampler: Sampler
    loop: LoopConfig
    among: Bool[np.ndarray, "N"] | None = None
    score: Callable[[], float] | None = None
    monitor: Callable[[], Mapping[str, float]] | None = None
    starts_trained: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A trained model of the run.

    Attributes:
        name: its folder within the run.
        key: fingerprint of all it was made from.
        record: steps, image presentations, seconds and curves.
        folder: where it is saved.
        device: where it is loaded to.
    """

    name: str
    key: str
    record: dict[str, Any]
    folder: Path
    device: torch.device

    @cached_property
    def embedder(self) -> Embedder:
        """The model, loaded on first use."""
        return Embedder.from_pretrained(self.folder).to(self.device)


@contextlib.contextmanager
def scalar_log(folder: Path, first_step: int) -> Iterator[Log]:
    """TensorBoard scalars of one training; what a killed run wrote from `first_step` on is superseded."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=first_step) as writer:
        yield writer.add_scalar
