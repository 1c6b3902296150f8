"""The recipe: every choice of a run, with defaults that work. An empty recipe is a good one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from univert.core.errors import BadInputError
from univert.data.transforms import Augmentation
from univert.losses.registry import LOSSES, LossName, LossOption, compares_images, make_loss
from univert.models.embedder import EmbedderConfig
from univert.training.combine_config import CombineConfig
from univert.training.member_name import MemberName

Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Count = Annotated[int, Ge(1)]
Trunk = Literal["frozen", "partial", "full"]
MinerName = Literal["none", "semi-hard", "hard", "distance-weighted"]
OptimiserName = Literal["adamw", "rmsprop"]
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
class LoopConfig:
    """One training: how long, how fast, when to stop.

    Attributes:
        epochs: passes over the training images (over the products, for P x K batches), at most.
        min_steps: a small vertical gets more epochs, until it has this many steps.
        batch_size: images a batch; for P x K batches, P = batch_size / images_per_product.
        images_per_product: K of P x K batches; 1 draws images at random, whatever their product (for losses with
            proxies).
        optimiser: `adamw` or `rmsprop`; proxies with sparse gradients have a lazy Adam of their own.
        decay: null lets the learning rates fall as a half cosine to zero after the warm-up; a number multiplies them
            by it every `decay_every_steps` steps, smoothly.
        decay_every_steps: see `decay`.
        learning_rate: of the head.
        trunk_learning_rate: of the base network, where it is not frozen.
        proxy_learning_rate: of the proxies.
        weight_decay: of weight matrices (AdamW); norms, biases and proxies have none.
        warmup: share of the steps during which the learning rates rise from zero.
        head_warmup: share of the steps during which the head alone learns.
        clip_norm: largest length of the model's gradient; proxies are not clipped.
        evaluations: how often the validation images are looked at over the whole training.
        patience: stop after this many looks without a better one.
        checkpoint_every_steps: how much work a kill can cost.
    """

    epochs: Count = 40
    min_steps: Count = 240
    batch_size: Annotated[int, Ge(4)] = 128
    images_per_product: Count = 4
    optimiser: OptimiserName = "adamw"
    decay: Annotated[float, Interval(gt=0, le=1)] | None = None
    decay_every_steps: Count | None = None
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

    def __post_init__(self) -> None:
        if (self.decay is None) != (self.decay_every_steps is None):
            raise BadInputError(
                "loop.decay and loop.decay_every_steps belong together: set both, or neither for a cosine; "
                f"got {self.decay} and {self.decay_every_steps}"
            )


@dataclass(frozen=True, kw_only=True)
class SpecialistsConfig:
    """One specialist a vertical.

    Attributes:
        loss: `triplet` (Unified eq. 1), `proxy-nca` (Proxies eq. 4) or any other of `univert.losses.registry.LOSSES`.
        loss_options: keyword arguments of that loss, such as `margin` or `softmax_scale`.
        proxies_per_product: below 1, products share proxies; above 1, each has several. Losses with proxies only.
        proxy_start: `random` directions, or means of the untrained embeddings of each product's images (`data`);
            null takes `data` for `dynamic-proxy-nca`, which may collapse from a random start, else `random`.
        reseed_every_steps: with `dynamic-proxy-nca`, how often all images are assigned anew and proxies that none of
            them chose are put to use; the images of a batch are assigned anew in every step.
        miner: which of a batch's triplets count: what the `triplet` loss itself takes (`none`), or what
            an in-batch miner chooses.
        mine_every_steps: how often strong negatives are looked for in all training images, to come into one batch with
            their anchors; 0 switches it off.
        size: width of a specialist's embedding; null takes the unified model's, `model.size`.
        sizes: by vertical, where one needs another width than the rest; a group takes its largest.
        loop: the training.
    """

    loss: LossName = "triplet"
    loss_options: dict[str, LossOption] = field(default_factory=dict)
    proxies_per_product: Positive = 1.0
    proxy_start: Literal["random", "data"] | None = None
    reseed_every_steps: Count = 20
    miner: MinerName = "none"
    mine_every_steps: Annotated[int, Ge(0)] = 0
    size: Count | None = None
    sizes: dict[str, Count] = field(default_factory=dict)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        # a loss of a few products meets the same checks as the one to be trained
        make_loss(
            self.loss, self.loss_options, products=32, size=2, proxies_per_product=self.proxies_per_product
        )
        kind, loop = LOSSES[self.loss].proxies, self.loop
        if self.proxy_start is None:
            object.__setattr__(self, "proxy_start", "data" if kind == "dynamic" else "random")
        without_effect = {
            "proxies_per_product": kind in ("none", "own") and self.proxies_per_product != 1,
            "proxy_start": kind == "none" and self.proxy_start != "random",
            "reseed_every_steps": kind != "dynamic" and self.reseed_every_steps != 20,
            "miner": self.loss != "triplet" and self.miner != "none",
        }
        for name, is_set in without_effect.items():
            if is_set:
                raise BadInputError(
                    f"specialists.{name} has no effect on the loss {self.loss!r}; leave it out"
                )
        if (compares_images(self.loss) or self.mine_every_steps) and loop.images_per_product < 2:
            raise BadInputError(
                f"specialists.loop.images_per_product must be at least 2 for {self.loss!r}"
                f"{' with mine_every_steps' if self.mine_every_steps else ''}: images of one product are compared "
                f"with each other; got {loop.images_per_product}"
            )
        if loop.batch_size < 2 * loop.images_per_product:
            raise BadInputError(
                "specialists.loop.batch_size must be at least twice images_per_product, "
                f"got {loop.batch_size} and {loop.images_per_product}"
            )


def with_positives(loop: LoopConfig) -> LoopConfig:
    """The same training with batches in which each image has others of its product."""
    return replace(loop, images_per_product=max(loop.images_per_product, 2 if loop.batch_size < 8 else 4))


@dataclass(frozen=True, kw_only=True)
class TargetsConfig:
    """How the embeddings of several models become one learning target.

    Attributes:
        align: rotate each model's space towards a common reference first, a group's model for each of its verticals
            by itself; off is the document's plain way.
        reference: what they are rotated towards: the PCA-reduced space of the untrained `base` network, the space of
            the first `joint` model among the members, or the generalised Procrustes mean of all `specialists`, each
            shown images of all verticals; `auto` takes a joint model where there is one, else the base network.
            (Where specialists alone are the target there is none, whatever the reference.)
        rounds: 1 rotates towards the reference; in each further round the mean of the members takes its place.
        join: put the members side by side (`concat`) and project, or take their `mean`.
        projection: to the unified model's width: onto principal directions (`pca`) or `random` ones.
        offset: set the verticals apart on the sphere by so much, 0 to below 1; see `place_apart`.
        confidence: of a predicted vertical (`data.unsorted`): from this probability on, its specialist alone counts.
        uncertain: below it, the specialists of all likely verticals count by their probability (`weighted`), or the
            image is `left_out`.
    """

    align: bool = True
    reference: Literal["auto", "base", "joint", "specialists"] = "auto"
    rounds: Count = 1
    join: Literal["concat", "mean"] = "concat"
    projection: Literal["pca", "random"] = "pca"
    offset: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    confidence: Annotated[float, Interval(ge=0, le=1)] = 0.9
    uncertain: Literal["weighted", "left_out"] = "weighted"

    def __post_init__(self) -> None:
        if not self.align and (self.reference != "auto" or self.rounds != 1):
            raise BadInputError(
                "unify.targets.reference and rounds have no effect where align is false; leave them out"
            )


@dataclass(frozen=True, kw_only=True)
class UnifyLoopConfig(LoopConfig):
    """As `LoopConfig`, with defaults for the L2 training: batch normalisation allows a higher rate (Unified)."""

    epochs: Count = 35
    learning_rate: Positive = 4e-3


@dataclass(frozen=True, kw_only=True)
class PolishLoopConfig(LoopConfig):
    """As `LoopConfig`, with defaults for polishing: short and gentle."""

    epochs: Count = 10
    images_per_product: Count = 1
    learning_rate: Positive = 5e-4


@dataclass(frozen=True, kw_only=True)
class PolishLabelsConfig(SpecialistsConfig):
    """As `SpecialistsConfig`, with defaults for polishing."""

    loss: LossName = "proxy-nca"
    proxy_start: Literal["random", "data"] | None = "data"
    loop: PolishLoopConfig = field(default_factory=PolishLoopConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size or self.sizes:
            raise BadInputError(
                "unify.polish.labels.size and sizes have no effect: the model has its size; leave them out"
            )


@dataclass(frozen=True, kw_only=True)
class PolishConfig:
    """Training on product labels after the L2 training, from where that ended.

    Attributes:
        enabled: polish at all; the result is kept only where the validation split finds it better and nowhere worse.
        weight: of the L2 loss that goes on beside the loss on labels; 0 leaves it out.
        labels: loss, batches and loop.
    """

    enabled: bool = False
    weight: NotNegative = 1.0
    labels: PolishLabelsConfig = field(default_factory=PolishLabelsConfig)


@dataclass(frozen=True, kw_only=True)
class UnifyConfig:
    """One model from all specialists (Unified eq. 2).

    Attributes:
        way: where the unified model comes from. `specialists`: an image's learning target is its specialist's
            embedding, as in the document; `ensemble`: the target joins the embeddings of several models; `auto`: both
            are trained, held against each other and the joint models on the validation split, and the best is taken.
        members: of an ensemble, in the order in which they are tried: `specialists` (the recipe's, in their groups),
            `verticals` (each by itself), `specialists:LOSS`, `joint:LOSS`; these with `#1`, `#2` for further seeds. The
            first is always in.
        choose: leave out the members that do not help on the validation split; off takes all that the budget allows.
        budget: what the members may cost together, in image presentations, as a multiple of what training the recipe's
            specialists and a unified model from them costs. Members beyond it are left out.
        targets: how the members' embeddings become one learning target.
        unlabelled: learn from images whose product is unknown, too.
        consistent: a target is the specialist's embedding of the very view that the model sees (augmented
            views then come from the finite `data.views`); off takes its embedding of the image as it is.
        batch_norm: a BatchNorm on the embedding, before the L2 norm.
        start: what the training starts from. `members`: the heads of those members that embed most of the verticals,
            side by side, and so as wide as they are together; where the base network learns, base network and head of
            that one of them which did best on the validation split. `random`, and where there are fewer than two such
            members (one, where the base network learns): a head as `model` says on the untrained base network.
        start_rate: what `start = "members"` makes of the loop's learning rate: it has less to learn.
        loop: the training.
        polish: training on labels afterwards.
    """

    way: Literal["auto", "specialists", "ensemble"] = "auto"
    members: tuple[str, ...] = ("specialists", "verticals", "joint:proxy-nca", "joint:triplet")
    choose: bool = True
    budget: Positive = 4.0
    targets: TargetsConfig = field(default_factory=TargetsConfig)
    unlabelled: bool = True
    consistent: bool = True
    batch_norm: bool = True
    start: Literal["members", "random"] = "members"
    start_rate: Positive = 0.25
    loop: UnifyLoopConfig = field(default_factory=UnifyLoopConfig)
    polish: PolishConfig = field(default_factory=PolishConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        names = [str(MemberName.parse(name)) for name in self.members]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not names:
            raise BadInputError(
                f"unify.members must name at least one member and each once, got {list(self.members)}"
            )
        without_joint = self.way == "specialists" or not any(name.startswith("joint") for name in names)
        if self.targets.reference == "joint" and without_joint:
            raise BadInputError(
                'unify.targets.reference = "joint" needs a joint model among the members of an ensemble; '
                'name one in unify.members, or take "base"'
            )


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
        tolerance: a loss of Recall@1 (0 to 1) up to this much is none.
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
    resamples: Count = 2000
    loop: GrowLoopConfig = field(default_factory=GrowLoopConfig)

    def __post_init__(self) -> None:
        if self.targets == "ensemble" and not self.align:
            raise BadInputError(
                'grow.align must be true where grow.targets is "ensemble"; set targets = "specialist"'
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
