"""How the unified model comes about: the members of its learning targets, the targets, the training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Interval

from univert.core.config import refuse_without_effect
from univert.core.errors import BadInputError
from univert.losses.names import LossName
from univert.training.label_config import Count, LabelLoopConfig, LoopConfig, NotNegative, Positive, SpecialistsConfig
from univert.training.targets.member_name import MemberName


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
        if not self.align:
            refuse_without_effect(self, ("reference", "rounds"), where="unify.targets.", because="where align is false")


@dataclass(frozen=True, kw_only=True)
class UnifyLoopConfig(LoopConfig):
    """As `LoopConfig`, with defaults for the L2 training: batch normalisation allows a higher rate (Unified)."""

    epochs: Count = 35
    learning_rate: Positive = 4e-3


@dataclass(frozen=True, kw_only=True)
class PolishLoopConfig(LabelLoopConfig):
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
        refuse_without_effect(
            self, ("size", "sizes"), where="unify.polish.labels.", because="where the model has its size"
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

    def __post_init__(self) -> None:
        if not self.enabled:
            refuse_without_effect(
                *(self, ("weight", "labels")), where="unify.polish.", because="where unify.polish.enabled is false"
            )


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
        start_rate: what `start = "members"` makes of the loop's learning rate of the head: it has less to learn.
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
            raise BadInputError(f"unify.members must name at least one member and each once, got {list(self.members)}")
        if self.way == "specialists":
            refuse_without_effect(
                *(self, ("members", "choose", "budget")), where="unify.", because='where unify.way is "specialists"'
            )
        if self.start == "random":
            refuse_without_effect(self, ("start_rate",), where="unify.", because='where unify.start is "random"')
        if self.targets.offset:
            refuse_without_effect(
                *(self, ("start_rate",)), where="unify.", because="where unify.targets.offset sets a random start"
            )
        without_joint = self.way == "specialists" or not any(name.startswith("joint") for name in names)
        if self.targets.reference == "joint" and without_joint:
            raise BadInputError(
                'unify.targets.reference = "joint" needs a joint model among the members of an ensemble; '
                'name one in unify.members, or take "base"'
            )
