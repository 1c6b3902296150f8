"""The recipe: every choice of a run, with defaults that work. An empty recipe is a good one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from univert.core.config import refuse_without_effect
from univert.core.errors import BadInputError
from univert.data.transforms import Augmentation
from univert.metrics.compare import LARGE_LOSS
from univert.models.embedder import EmbedderConfig
from univert.training.combine.config import CombineConfig
from univert.training.label_config import Count, LoopConfig, NotNegative, Positive, SpecialistsConfig
from univert.training.targets.config import UnifyConfig

Trunk = Literal["frozen", "partial", "full"]
Baseline = Literal["joint_triplet", "joint_proxy_nca", "unified_plain", "unified_labelled", "unified_aligned"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How images reach the network.

    Attributes:
        verticals: train on these alone; empty means all of the catalogue's.
        unsorted: a vertical of the catalogue that is none: where images without a product are kept whose vertical
            nobody knows. The unified model learns from them by their predicted vertical.
        views: augmented views of each training image; raise it where the base network learns.
        augmentation: how a view is drawn.
    """

    verticals: tuple[str, ...] = ()
    unsorted: str | None = None
    views: Count = 4
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What the unified model is held against.

    Attributes:
        baselines: rows to train besides it; the untrained base network and the specialists are always there.
        resamples: bootstrap resamples behind each interval.
        bounds_images: training images on which the bounds of a loss with proxies are watched; 0 switches it off.
    """

    baselines: tuple[Baseline, ...] = (
        "joint_triplet",
        "joint_proxy_nca",
        "unified_plain",
        "unified_labelled",
        "unified_aligned",
    )
    resamples: Count = 1000
    bounds_images: Annotated[int, Ge(0)] = 512


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
    limit: Annotated[float, Interval(ge=0, le=1)] = LARGE_LOSS
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


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All of a run's choices.

    Attributes:
        seed: of everything random. On one CPU the same seed gives the same weights.
        trunk: `frozen` (features cached: minutes on a laptop), `partial` (the last blocks learn), `full`.
        partial_blocks: how many of the base network's last blocks learn where `trunk` is `partial`.
        maps_gb: what the frozen blocks before them make of each image and view is kept on disk if it takes no more than
            so many gigabytes; else, or at 0, every step decodes its images and runs all of the network.

    Example:
        >>> Recipe().specialists.loss
        'triplet'
    """

    seed: Annotated[int, Ge(0)] = 0
    trunk: Trunk = "frozen"
    partial_blocks: Count = 2
    maps_gb: NotNegative = 8.0
    data: DataConfig = field(default_factory=DataConfig)
    model: EmbedderConfig = field(default_factory=EmbedderConfig)
    specialists: SpecialistsConfig = field(default_factory=SpecialistsConfig)
    combine: CombineConfig = field(default_factory=CombineConfig)
    unify: UnifyConfig = field(default_factory=UnifyConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    grow: GrowConfig = field(default_factory=GrowConfig)

    def __post_init__(self) -> None:
        if self.trunk != "partial":
            refuse_without_effect(
                self, ("partial_blocks", "maps_gb"), where="", because=f'where trunk is "{self.trunk}"'
            )
