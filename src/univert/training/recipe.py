"""The recipe: every choice of a run, with defaults that work. An empty recipe is a good one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from annotated_types import Ge

from univert.core.config import refuse_without_effect
from univert.data.transforms import Augmentation
from univert.models.config import BaseNetworkLearns, EmbedderConfig
from univert.training.combine.config import CombineConfig
from univert.training.grow.config import GrowConfig
from univert.training.label_config import Count, NotNegative, SpecialistsConfig
from univert.training.targets.config import UnifyConfig
from univert.training.triplet_config import GroupTripletsConfig

Baseline = Literal[
    "joint_triplet",
    "joint_proxy_nca",
    "joint_long",
    "unified_online",
    "unified_plain",
    "unified_labelled",
    "unified_aligned",
]


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
    """What the unified model is compared with.

    Attributes:
        baselines: models to train besides it; the untrained base network and the specialists are always there.
            `joint_long` is one joint Proxy-NCA model with a head as wide as the unified model's, shown as many images
            as that and all models behind it together. `unified_online` is what `unify.way = "online"` gives. With
            `unify.way = "auto"` these two are candidates, too.
        resamples: bootstrap resamples behind each interval.
        bounds_images: training images on which the bounds of a loss with proxies are watched; 0 switches it off.
    """

    baselines: tuple[Baseline, ...] = ("joint_triplet", "joint_proxy_nca", "joint_long", "unified_plain")
    resamples: Count = 1000
    bounds_images: Annotated[int, Ge(0)] = 512


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All of a run's choices.

    Attributes:
        seed: of everything random. On one CPU the same seed gives the same weights.
        base_network_learns: `no` (features cached: minutes on a laptop), `last_blocks`, `all`. `auto`: all of it on a
            GPU; on a CPU its last blocks, if what comes before them can be kept within `maps_gb`, else `no`.
        last_blocks: how many of the base network's last blocks learn where `base_network_learns` is `last_blocks`.
        maps_gb: what the blocks before them make of each image and view is kept on disk if it takes no more than
            so many gigabytes; else, or at 0, every step decodes its images and runs all of the network.

    Example:
        >>> Recipe().specialists.loss
        'triplet'
    """

    seed: Annotated[int, Ge(0)] = 0
    base_network_learns: Literal["auto", BaseNetworkLearns] = "auto"
    last_blocks: Count = 2
    maps_gb: NotNegative = 16.0
    data: DataConfig = field(default_factory=DataConfig)
    model: EmbedderConfig = field(default_factory=EmbedderConfig)
    specialists: SpecialistsConfig = field(default_factory=SpecialistsConfig)
    combine: CombineConfig = field(default_factory=CombineConfig)
    triplets: GroupTripletsConfig = field(default_factory=GroupTripletsConfig)
    unify: UnifyConfig = field(default_factory=UnifyConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    grow: GrowConfig = field(default_factory=GrowConfig)

    def __post_init__(self) -> None:
        if self.base_network_learns in ("no", "all"):
            refuse_without_effect(
                self,
                ("last_blocks", "maps_gb"),
                where="",
                because=f'where base_network_learns is "{self.base_network_learns}"',
            )

    def learning(self, learns: BaseNetworkLearns) -> Recipe:
        """With that much of the base network learning, and without settings that have no effect then."""
        unheeded: dict[str, Any] = {"last_blocks": Recipe.last_blocks, "maps_gb": Recipe.maps_gb}
        return replace(self, base_network_learns=learns, **({} if learns == "last_blocks" else unheeded))

    def settled(self) -> Recipe:
        """With the lengths of trainings that suit what learns, where it leaves them open."""
        learns = self.learns != "no"
        return replace(
            self,
            specialists=replace(self.specialists, loop=self.specialists.loop.settled(learns=learns)),
            unify=replace(self.unify, loop=self.unify.loop.settled(learns=learns)),
            grow=replace(self.grow, loop=self.grow.loop.settled(learns=learns)),
        )

    @property
    def learns(self) -> BaseNetworkLearns:
        """What learns of the base network, where that is no longer left open."""
        assert self.base_network_learns != "auto"
        return self.base_network_learns
