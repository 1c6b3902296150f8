"""The recipe of a detector: every choice, with defaults that work. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge

from univert.core.errors import BadInputError
from univert.data.transforms import Augmentation
from univert.detection.config import DetectorConfig
from univert.detection.pasting import PastingConfig
from univert.models.config import BaseNetworkLearns
from univert.training.label_config import Count, LoopConfig, Positive


@dataclass(frozen=True, kw_only=True)
class SceneAugmentation(Augmentation):
    """As `Augmentation`, with stronger changes: scenes are few. Boxes stay as they are: they are what is learned."""

    min_scale: float = 0.3
    max_aspect: float = 1.4
    jitter: float = 0.3
    box_jitter: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.box_jitter:
            raise BadInputError("augmentation.box_jitter has no effect on a detector's scenes; leave it out")


@dataclass(frozen=True, kw_only=True)
class DetectionLoop(LoopConfig):
    """As `LoopConfig`, in smaller batches: a scene counts for many images."""

    epochs: Count = 25
    min_steps: Count = 1500
    batch_size: Annotated[int, Ge(4)] = 16
    learning_rate: Positive = 2e-3
    base_network_learning_rate: Positive = 6e-4
    evaluations: Count = 8


@dataclass(frozen=True, kw_only=True)
class DetectionRecipe:
    """All choices of a detector's training.

    Attributes:
        seed: of everything random. On one CPU the same seed gives the same weights.
        base_network_learns: `no`, `last_blocks` or `all`; what does not learn is run once for each view, and kept.
        last_blocks: how many of the base network's three parts learn where `base_network_learns` is `last_blocks`.
        views: augmented views of each training scene.
        augmentation: how a view is drawn.
        detector: what the detector is made of.
        loop: the training.
        pasting: how scenes are made where only pictures of single products are given.
    """

    seed: Annotated[int, Ge(0)] = 0
    base_network_learns: BaseNetworkLearns = "last_blocks"
    last_blocks: Count = 2
    views: Count = 6
    augmentation: SceneAugmentation = field(default_factory=SceneAugmentation)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    loop: DetectionLoop = field(default_factory=DetectionLoop)
    pasting: PastingConfig = field(default_factory=PastingConfig)
