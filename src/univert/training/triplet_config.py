"""How models learn from clean triplets. Loads no torch, so that recipes are read in no time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from univert.core.config import refuse_without_effect
from univert.core.errors import BadInputError
from univert.metrics.compare import LARGE_LOSS
from univert.training.label_config import Count, LoopConfig, NotNegative, Positive


@dataclass(frozen=True, kw_only=True)
class TripletLoopConfig(LoopConfig):
    """`LoopConfig` with the defaults of a fine-tuning: short, with small learning rates."""

    epochs: Count = 10
    min_steps: Count = 100
    batch_size: Annotated[int, Ge(4)] = 128
    learning_rate: Positive = 3e-4
    base_network_learning_rate: Positive = 1e-5


@dataclass(frozen=True, kw_only=True)
class TripletsConfig:
    """Fine-tuning on clean triplets.

    Attributes:
        margin: the wanted gap between D(a,n) and D(a,p), squared (Unified eq. 1).
        keep: weight of the L2 term that holds the model to its own old embeddings; 0 switches it off.
        others: share of each batch that is training images at random, on which the L2 term works; batch normalisation
            sees them, too.
        tolerance: on the validation images, a loss of up to this much (0.01: one point of Recall@1) is none.
        limit: a loss beyond this counts even where so few products show it that chance is not ruled out.
        loop: the training; `epochs` counts passes over the triplets.
    """

    margin: Positive = 0.2
    keep: NotNegative = 2.0
    others: Annotated[float, Interval(ge=0, le=0.9)] = 0.5
    tolerance: Annotated[float, Interval(ge=0, lt=1)] = 0.01
    limit: Annotated[float, Interval(ge=0, le=1)] = LARGE_LOSS
    loop: TripletLoopConfig = field(default_factory=TripletLoopConfig)

    def __post_init__(self) -> None:
        if self.keep and not self.others:
            raise BadInputError(
                f"keep has no effect without other images, got keep {self.keep} and others 0; set others, or keep = 0"
            )


@dataclass(frozen=True, kw_only=True)
class GroupTripletsConfig(TripletsConfig):
    """Clean triplets of a run: each group's model learns from those of its verticals before it becomes a target.

    Attributes:
        file: the triplets, see `univert.data.triplets.read_clean_triplets`; None: there are none.
        on_bad: `reject` the file for triplets that cannot be used, or `skip` those.
    """

    file: str | None = None
    on_bad: Literal["reject", "skip"] = "reject"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.file is None:
            names = ("margin", "keep", "others", "tolerance", "limit", "loop", "on_bad")
            refuse_without_effect(self, names, where="triplets.", because="without triplets.file")
