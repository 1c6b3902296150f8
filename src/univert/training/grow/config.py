"""What a recipe says about growing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Interval

from univert.core.config import refuse_without_effect
from univert.core.errors import BadInputError
from univert.training.label_config import Count, LoopConfig, NotNegative, Positive


@dataclass(frozen=True, kw_only=True)
class GrowLoopConfig(LoopConfig):
    """As `LoopConfig`, with defaults for a growth: from where the deployed model is, gently and with patience."""

    epochs: Count = 35
    learning_rate: Positive = 2e-3
    patience: Count = 20


@dataclass(frozen=True, kw_only=True)
class GrowConfig:
    """How a deployed model learns one more vertical (`univert grow`).

    Attributes:
        targets: `specialist`: the learning target of a new image is its specialist's embedding; `ensemble`: the mean of
            that, of a joint Proxy-NCA model's, trained on all labelled images of the catalogue, and of the deployed
            model's own, as far as each of these raises MAP@R of the grown gallery on the validation images.
        align: rotate the new models' spaces towards the deployed model's embeddings of the same images first.
        warm_start: start from the deployed model's weights.
        unlabelled: learn from images whose product is unknown, too; those of the old verticals hold their vectors fast.
        new_share: share of a batch that is of the new vertical; 0 takes the images as they come.
        neighbours_weight: how much it counts that an image sees its neighbours among the stored vectors as its own
            stored vector does; 0 leaves the L2 loss alone.
        neighbours_temperature: differences of cosine much below it hardly matter.
        neighbours_images: training images that can be neighbours, at most.
        tolerance: a loss of Recall@1 or MAP@R (0 to 1) up to this much is none.
        limit: a loss of Recall@1 or MAP@R (0 to 1) beyond this counts even where so few products show it that chance is
            not ruled out.
        resamples: of the bootstrap behind each comparison.
        loop: the training of the grown model.
    """

    targets: Literal["specialist", "ensemble"] = "ensemble"
    align: bool = True
    warm_start: bool = True
    unlabelled: bool = True
    new_share: Annotated[float, Interval(ge=0, lt=1)] = 0.35
    neighbours_weight: NotNegative = 0.0
    neighbours_temperature: Positive = 0.05
    neighbours_images: Count = 4096
    tolerance: Annotated[float, Interval(ge=0, lt=1)] = 0.01
    limit: Annotated[float, Interval(ge=0, le=1)] = 0.1
    resamples: Count = 2000
    loop: GrowLoopConfig = field(default_factory=GrowLoopConfig)

    def __post_init__(self) -> None:
        if self.targets == "ensemble" and not self.align:
            raise BadInputError('grow.align must be true where grow.targets is "ensemble"; set targets = "specialist"')
        if not self.neighbours_weight:
            refuse_without_effect(
                *(self, ("neighbours_temperature", "neighbours_images")),
                where="grow.",
                because="where grow.neighbours_weight is 0",
            )
