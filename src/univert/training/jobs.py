"""What one model of a run is to learn, and the model that came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from univert.training.objectives import Objective
from univert.training.sources import Source


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What one model is to learn; `univert.training.loop.fit` trains it.

    Attributes:
        embedder: the model, which learns in place; or what can be trained as one, a detector.
        objective: called with (embeddings, positions, views), gives the loss; its parameters learn too.
        sampler: the batches.
        loop: how long, how fast.
        settings: where the recipe has that loop, for messages.
        among: the images whose validation score counts; None for all.
        score: validation score of the model as it stands, larger is better; None takes MAP@R over the labelled
            validation images `among` those of the run.
        source: turns positions and views into embeddings; None takes the run's.
        monitor: further figures of the model as it stands, watched and never acted upon.
        starts_trained: the model knows something already. So its score before the first step counts, and the weights
            that are kept may lie between the start and what was learned, where that has the better score.
        looks: whether validation images are looked at on the way, and choose the weights; else the last stay.
    """

    embedder: Any
    objective: Objective
    sampler: Sampler
    loop: LoopConfig
    settings: str = "loop"
    among: Bool[np.ndarray, "N"] | None = None
    score: Callable[[], float] | None = None
    source: Source | None = None
    monitor: Callable[[], Mapping[str, float]] | None = None
    starts_trained: bool = False
    looks: bool = True


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
