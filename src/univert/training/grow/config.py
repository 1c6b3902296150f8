"""What a recipe says about growing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Interval

from univert.training.label_config import LoopConfig, Positive


@dataclass(frozen=True, kw_only=True)
class GrowLoopConfig(LoopConfig):
    """As `LoopConfig`, with defaults for a growth: gently from where the deployed model is."""

    batch_size: Annotated[int, Ge(4)] = 128
    learning_rate: Positive = 2e-3


@dataclass(frozen=True, kw_only=True)
class GrowConfig:
    """How a deployed model learns one more vertical (`univert grow`).

    Attributes:
        tolerance: a loss of Recall@1 or MAP@R (0 to 1) up to this much is none.
        limit: a loss of Recall@1 or MAP@R (0 to 1) beyond this counts even where so few products show it that chance is
            not ruled out.
        loop: the training of the grown model.
    """

    tolerance: Annotated[float, Interval(ge=0, lt=1)] = 0.01
    limit: Annotated[float, Interval(ge=0, le=1)] = 0.1
    loop: GrowLoopConfig = field(default_factory=GrowLoopConfig)
