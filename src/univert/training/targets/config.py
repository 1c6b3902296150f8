"""How the unified model comes about: the members of its learning targets, the targets, the training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Interval

from univert.core.config import refuse_without_effect
from univert.core.errors import BadInputError
from univert.losses.names import LOSSES, LossName
from univert.training.label_config import LoopConfig, Positive

MemberKind = Literal["specialists", "verticals", "joint"]


@dataclass(frozen=True, kw_only=True)
class MemberName:
    """A member of the learning targets as a recipe names it: `specialists`, `verticals`, `joint:proxy-nca#2`.

    Attributes:
        kind: `specialists`: the recipe's specialists, one for each group of verticals; `verticals`: the same, each
            vertical by itself whatever the groups; `joint`: one model for all verticals.
        loss: of a joint model; None for the others.
        number: tells joint models apart that differ in nothing but their seed.
    """

    kind: MemberKind
    loss: LossName | None = None
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> MemberName:
        """Read a name.

        Raises:
            BadInputError: it is none.
        """
        body, mark, number = text.partition("#")
        kind, _, loss = body.partition(":")
        known = text in ("specialists", "verticals") or (kind == "joint" and loss in LOSSES)
        if not known or (mark and not number.isdecimal()):
            raise BadInputError(
                "a member is `specialists`, `verticals` or `joint:LOSS`, the last with `#1`, `#2` for more seeds; "
                f"got {text!r}; losses: {', '.join(LOSSES)}"
            )
        return cls(kind=kind, loss=loss or None, number=int(number or 0))  # type: ignore[arg-type]

    def __str__(self) -> str:
        """As the recipe writes it."""
        return f"{self.kind}{f':{self.loss}' if self.loss else ''}{f'#{self.number}' if self.number else ''}"

    @property
    def title(self) -> str:
        """For people."""
        if self.kind == "joint":
            return f"one joint model, {self.loss}{f', again (seed {self.number})' if self.number else ''}"
        if self.kind == "specialists":
            return "the specialists, in their groups"
        return "the specialists, each vertical by itself"


@dataclass(frozen=True, kw_only=True)
class UnifyLoopConfig(LoopConfig):
    """As `LoopConfig`, with defaults for the L2 training: batch normalisation allows a higher rate (Unified)."""

    learning_rate: Positive = 4e-3


@dataclass(frozen=True, kw_only=True)
class UnifyConfig:
    """One model from all specialists (Unified eq. 2).

    The way of the unified-embedding paper is `way = "specialists"`, `align = false`, `consistent = false`,
    `start = "random"`.

    Attributes:
        way: where the unified model comes from. `specialists`: an image's learning target is its specialist's
            embedding; `ensemble`: the target joins the embeddings of several models; `auto`: both are trained, compared
            with each other and with the joint models on the validation split, and the best is taken. `online`:
            from product labels, in one training with specialists that are heads on its own base network
            (`univert.training.online`).
        members: of an ensemble, in the order in which they are tried: `specialists` (the recipe's, in their groups),
            `verticals` (each by itself), `joint:LOSS`, with `#1`, `#2` for further seeds. The first is always in, and
            further seeds come in with it; another stays if the targets with it are better on the validation split.
        align: rotate each member's space towards a common reference first, a group's model for each of its verticals
            by itself. The reference is the first joint model among the members; where there is none, the PCA-reduced
            space of the untrained base network.
        confidence: of a predicted vertical (`data.unsorted`): from this probability on, its specialist alone counts;
            below it, the specialists of all likely verticals count by their probability.
        unlabelled: learn from images whose product is unknown, too.
        consistent: a target is the members' embedding of the very view that the model sees (augmented views then come
            from the finite `data.views`); off takes their embedding of the image as it is.
        start: what the training starts from. `members`: the heads of those members that embed most of the verticals,
            side by side, and so as wide as they are together, at a quarter of the loop's learning rate; where the base
            network learns, the mean of their weights, of the best on the validation split and those with which the
            mean is no worse. `random`, and where there are fewer than two such members (none, where the base
            network learns): a head as `model` says on the untrained base network.
        loop: the training.
    """

    way: Literal["auto", "specialists", "ensemble", "online"] = "auto"
    members: tuple[str, ...] = (
        "joint:proxy-nca",
        "joint:proxy-nca#1",
        "joint:proxy-nca#2",
        "joint:triplet",
        "specialists",
        "verticals",
    )
    align: bool = True
    confidence: Annotated[float, Interval(ge=0, le=1)] = 0.9
    unlabelled: bool = True
    consistent: bool = True
    start: Literal["members", "random"] = "members"
    loop: UnifyLoopConfig = field(default_factory=UnifyLoopConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        names = [str(MemberName.parse(name)) for name in self.members]
        if not names or len(set(names)) < len(names):
            raise BadInputError(f"unify.members must name at least one member and each once, got {list(self.members)}")
        if self.way in ("specialists", "online"):
            refuse_without_effect(self, ("members",), where="unify.", because=f'where unify.way is "{self.way}"')
