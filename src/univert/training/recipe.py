"""The recipe: every choice of a run, with defaults that work. An empty recipe is a good one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from univert.core.errors import BadInputError
from univert.data.transforms import Augmentation
from univert.models.embedder import EmbedderConfig

Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Count = Annotated[int, Ge(1)]
Trunk = Literal["frozen", "partial", "full"]
LossName = Literal["triplet", "proxy-nca"]
Baseline = Literal["joint_triplet", "joint_proxy_nca", "unified_plain", "unified_labelled", "unified_aligned"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How images reach the network.

    Attributes:
        verticals: train on these alone; empty means all of the catalogue's.
        views: augmented views of each training image; raise it where the base network learns.
        augmentation: how a view is drawn.
    """

    verticals: tuple[str, ...] = ()
    views: Count = 4
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """One training: how long, how fast, when to stop.

    Attributes:
        epochs: passes over the training images (over the products, for P x K batches), at most.
        min_steps: a small vertical gets more epochs, until it has this many steps.
        batch_size: images a batch; for P x K batches, P = batch_size / images_per_product.
        images_per_product: K of P x K batches.
        learning_rate: of the head.
        trunk_learning_rate: of the base network, where it is not frozen.
        proxy_learning_rate: of the proxies.
        weight_decay: of weight matrices (AdamW); norms, biases and proxies have none.
        warmup: share of the steps during which the learning rates rise from zero; then they fall as a cosine.
        head_warmup: share of the steps during which the head alone learns.
        clip_norm: largest length of the model's gradient; proxies are not clipped.
        evaluations: how often the validation images are looked at over the whole training.
        patience: stop after this many looks without a better one.
        checkpoint_every_steps: how much work a kill can cost.
    """

    epochs: Count = 40
    min_steps: Count = 240
    batch_size: Annotated[int, Ge(4)] = 128
    images_per_product: Annotated[int, Ge(2)] = 4
    learning_rate: Positive = 1e-3
    trunk_learning_rate: Positive = 1e-4
    proxy_learning_rate: Positive = 3e-2
    weight_decay: NotNegative = 1e-2
    warmup: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    head_warmup: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    clip_norm: Positive = 5.0
    evaluations: Count = 20
    patience: Count = 8
    checkpoint_every_steps: Count = 200


@dataclass(frozen=True, kw_only=True)
class SpecialistsConfig:
    """One specialist a vertical.

    Attributes:
        loss: `triplet` (Unified eq. 1) or `proxy-nca` (Proxies eq. 4).
        margin: of the triplet loss, in squared distance.
        scale: of Proxy-NCA, 1/temperature.
        form: of Proxy-NCA: `softmax`, or `paper` as printed.
        loop: the training.
    """

    loss: LossName = "triplet"
    margin: Positive = 0.2
    scale: Positive = 9.0
    form: Literal["softmax", "paper"] = "softmax"
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if self.loop.batch_size < 2 * self.loop.images_per_product:
            raise BadInputError(
                "specialists.loop.batch_size must be at least twice images_per_product, "
                f"got {self.loop.batch_size} and {self.loop.images_per_product}"
            )


@dataclass(frozen=True, kw_only=True)
class UnifyConfig:
    """One model from all specialists (Unified eq. 2).

    Attributes:
        targets: `specialists`: an image's learning target is its specialist's embedding, as in the document;
            `ensemble`: the mean of that and of a joint Proxy-NCA model's embedding, the specialist's space rotated
            towards the joint model's first. It costs the training of the joint model, and needs `align`.
        align: rotate each specialist's space towards a common reference first; off is the document's plain way.
        unlabelled: learn from images whose product is unknown, too.
        consistent: a target is the specialist's embedding of the very view that the model sees (augmented
            views then come from the finite `data.views`); off takes its embedding of the image as it is.
        batch_norm: a BatchNorm on the embedding, before the L2 norm.
        loop: the training.
    """

    targets: Literal["specialists", "ensemble"] = "ensemble"
    align: bool = True
    unlabelled: bool = True
    consistent: bool = True
    batch_norm: bool = True
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(epochs=35, learning_rate=4e-3))

    def __post_init__(self) -> None:
        if self.targets == "ensemble" and not self.align:
            raise BadInputError(
                'unify.align must be true where unify.targets is "ensemble"; set targets = "specialists"'
            )


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What the unified model is held against.

    Attributes:
        baselines: rows to train besides it; the untrained base network and the specialists are always there.
        resamples: bootstrap resamples behind each interval.
    """

    baselines: tuple[Baseline, ...] = (
        "joint_triplet",
        "joint_proxy_nca",
        "unified_plain",
        "unified_labelled",
        "unified_aligned",
    )
    resamples: Count = 1000


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All of a run's choices.

    Attributes:
        seed: of everything random. On one CPU the same seed gives the same weights.
        trunk: `frozen` (features cached: minutes on a laptop), `partial` (the last blocks learn), `full`.
        partial_blocks: how many of the base network's last blocks learn where `trunk` is `partial`.

    Example:
        >>> Recipe().specialists.loss
        'triplet'
    """

    seed: Annotated[int, Ge(0)] = 0
    trunk: Trunk = "frozen"
    partial_blocks: Count = 2
    data: DataConfig = field(default_factory=DataConfig)
    model: EmbedderConfig = field(default_factory=EmbedderConfig)
    specialists: SpecialistsConfig = field(default_factory=SpecialistsConfig)
    unify: UnifyConfig = field(default_factory=UnifyConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
