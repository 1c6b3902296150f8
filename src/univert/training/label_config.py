"""How models are trained: the loop that all share, and what a training on product labels has besides."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal, Self

from annotated_types import Ge, Gt, Interval

from univert.core.config import refuse_without_effect
from univert.core.errors import BadInputError
from univert.losses.names import LOSSES, LossName, LossOption, check_loss_options, compares_images

Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Count = Annotated[int, Ge(1)]
MinerName = Literal["none", "semi-hard", "hard", "distance-weighted"]
OptimiserName = Literal["adamw", "rmsprop"]


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """One training: how long, how fast.

    The learning rates rise over the first tenth of the steps, in which the head alone learns, and then go down to zero
    as a half cosine.

    Attributes:
        epochs: passes over the training images (over the products, where a batch holds several images of each), at
            most. None: 6 where the base network learns, else 30, since a head alone needs more and costs little.
        min_steps: a small vertical gets more epochs, until it has this many steps. None: 240; of a specialist whose
            base network learns, 40.
        batch_size: images a batch.
        learning_rate: of the head.
        base_network_learning_rate: of the base network, where it learns.
        evaluations: how often the validation images are looked at over the whole training; the weights of the best
            look are kept. No training ends early: while the rates are high a model may well get worse for a time.
    """

    epochs: Count | None = None
    min_steps: Count | None = None
    batch_size: Annotated[int, Ge(4)] = 64
    learning_rate: Positive = 1e-3
    base_network_learning_rate: Positive = 1e-3
    evaluations: Count = 10
    least_steps_learning: ClassVar[int] = 240
    """What `min_steps` is where it is None and the base network learns."""

    def settled(self, *, learns: bool) -> Self:
        """With numbers in place of None, by whether the base network learns."""
        epochs, least = (6, self.least_steps_learning) if learns else (30, 240)
        return replace(self, epochs=self.epochs or epochs, min_steps=self.min_steps or least)

    def steps(self, steps_per_epoch: int) -> int:
        """How long the training is at most, in steps, once it is settled."""
        assert self.epochs
        assert self.min_steps
        return max(self.epochs * steps_per_epoch, self.min_steps)


@dataclass(frozen=True, kw_only=True)
class LabelLoopConfig(LoopConfig):
    """As `LoopConfig`, with what trainings on product labels need besides.

    Attributes:
        images_per_product: K of P x K batches, P = batch_size / K; 1 draws images at random, whatever their product
            (for losses with proxies). None: 4 for a loss that compares images with each other, else 2.
        optimiser: `adamw` or `rmsprop`; proxies with sparse gradients have a lazy Adam of their own.
        decay: None lets the learning rates go down as a half cosine; a number multiplies them by it every
            `decay_every_steps` steps, smoothly.
        decay_every_steps: see `decay`.
        proxy_learning_rate: of the proxies.
        weight_decay: of weight matrices (AdamW); norms, biases and proxies have none.
    """

    images_per_product: Count | None = None
    optimiser: OptimiserName = "adamw"
    decay: Annotated[float, Interval(gt=0, le=1)] | None = None
    decay_every_steps: Count | None = None
    proxy_learning_rate: Positive = 1e-2
    weight_decay: NotNegative = 1e-2
    least_steps_learning: ClassVar[int] = 40

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
        loss: `triplet` (Unified eq. 1), `proxy-nca` (Proxies eq. 4) or any other of `univert.losses.names.LOSSES`.
        loss_options: keyword arguments of that loss, such as `margin` or `softmax_scale`.
        proxies_per_product: below 1, products share proxies; above 1, each has several. Losses with proxies only.
        proxy_start: means of the untrained embeddings of each product's images (`data`), or `random` directions. With
            `dynamic-proxy-nca` also `random-assignment`: random directions, and until all images are first assigned
            anew each belongs to a random one.
        reseed_every_steps: with `dynamic-proxy-nca`, how often all images are assigned anew and proxies that none of
            them chose are put to use; the images of a batch are assigned anew in every step.
        miner: which of a batch's triplets count: what the `triplet` loss itself takes (`none`), or what
            an in-batch miner chooses.
        mine_every_steps: how often strong negatives are looked for in all training images, to come into one batch with
            their anchors; 0 switches it off.
        size: width of a specialist's embedding; None takes the unified model's, `model.size`.
        sizes: by vertical, where one needs another width than the rest; a group takes its largest.
        by_source: a specialist for each source of a vertical's images (photo, product picture), where each has labels
            enough.
        loop: the training.
    """

    loss: LossName = "triplet"
    loss_options: dict[str, LossOption] = field(default_factory=dict)
    proxies_per_product: Positive = 1.0
    proxy_start: Literal["data", "random", "random-assignment"] = "data"
    reseed_every_steps: Count = 20
    miner: MinerName = "none"
    mine_every_steps: Annotated[int, Ge(0)] = 0
    size: Count | None = None
    sizes: dict[str, Count] = field(default_factory=dict)
    by_source: bool = False
    loop: LabelLoopConfig = field(default_factory=LabelLoopConfig)

    def __post_init__(self) -> None:
        check_loss_options(self.loss, self.loss_options)
        entry, loop = LOSSES[self.loss], self.loop
        unheeded = {
            "proxies_per_product": not entry.has_bank,
            "proxy_start": not entry.has_bank,
            "reseed_every_steps": entry.proxies != "dynamic",
            "miner": not entry.takes_miner,
        }
        refuse_without_effect(
            self,
            [name for name, applies in unheeded.items() if applies],
            where="specialists.",
            because=f"on the loss {self.loss!r}",
        )
        if self.proxy_start == "random-assignment" and entry.proxies != "dynamic":
            raise BadInputError(
                f'specialists.proxy_start = "random-assignment" is for dynamic-proxy-nca; with {self.loss!r} the '
                "product of an image says which proxies are its own"
            )
        if self.by_source:
            refuse_without_effect(self, ("sizes",), where="specialists.", because="where specialists.by_source is true")
        if self._needs_pairs and self.images_per_product < 2:
            raise BadInputError(
                f"specialists.loop.images_per_product must be at least 2 for {self.loss!r}"
                f"{' with mine_every_steps' if self.mine_every_steps else ''}: images of one product are compared "
                f"with each other; got {loop.images_per_product}"
            )
        if loop.batch_size < 2 * self.images_per_product:
            raise BadInputError(
                "specialists.loop.batch_size must be at least twice images_per_product, "
                f"got {loop.batch_size} and {loop.images_per_product}"
            )

    @property
    def images_per_product(self) -> int:
        """How many images of a product a batch holds."""
        return self.loop.images_per_product or (min(4, self.loop.batch_size // 2) if self._needs_pairs else 2)

    @property
    def _needs_pairs(self) -> bool:
        return compares_images(self.loss) or self.mine_every_steps > 0
