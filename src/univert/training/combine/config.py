"""What a recipe says about combining verticals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from univert.core.config import refuse_without_effect
from univert.core.errors import BadInputError

Count = Annotated[int, Ge(1)]


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """The quick trainings of the probe: a small head on cached features of the frozen base network.

    Attributes:
        hidden_size: width of the head's first set; 0 leaves it out.
        size: of the embedding.
        steps: for each vertical of the group; by itself a vertical may stop early, as specialists do.
        views: augmented views it learns from, besides the images as they are; at most `data.views`.
        seeds: trainings with different random starts for each fold; every query counts once for each.
        images: labelled training images of a vertical that take part, at most; whole products are drawn.
    """

    hidden_size: Annotated[int, Ge(0)] = 256
    size: Count = 128
    steps: Count = 80
    views: Count = 2
    seeds: Count = 1
    images: Annotated[int, Ge(8)] = 2000


@dataclass(frozen=True, kw_only=True)
class CombineConfig:
    """Which verticals are trained together (Unified, Tables 1 and 2).

    Attributes:
        mode: `probe`: small heads on the frozen base network's cached features foretell what joint training does,
            whatever `trunk` says; `full`: the trials train as the specialists do; `off`: every vertical by itself.
        order: `difficulty`: the vertical whose own specialist does best comes first; `centroids`: a group starts with
            the vertical that has most labelled training images, and the one with the nearest centroid comes next.
        folds: so many models a trial share the labelled training products; those that one of them did not learn from
            are its queries. 0 takes the validation images as queries, with one model a trial.
        tolerance: a fall of Recall@1 or MAP@R (0 to 1) up to this much counts as none.
        level: 1 - level is the chance that a trial which does no harm is refused.
        trials: how many combinations are tried at most; the verticals that are left then stay by themselves.
        unmeasured: a vertical without queries cannot show harm: leave it `alone`, or let it `join` where the others
            show none.
        probe: the probe's trainings.
    """

    mode: Literal["off", "probe", "full"] = "probe"
    order: Literal["difficulty", "centroids"] = "difficulty"
    folds: Annotated[int, Ge(0)] = 3
    tolerance: Annotated[float, Interval(ge=0, lt=1)] = 0.01
    level: Annotated[float, Interval(gt=0, lt=1)] = 0.95
    trials: Count = 40
    unmeasured: Literal["alone", "join"] = "alone"
    probe: ProbeConfig = field(default_factory=ProbeConfig)

    def __post_init__(self) -> None:
        if self.folds == 1:
            raise BadInputError(
                "combine.folds must be 0 or at least 2, got 1: a single fold would hold all products out; "
                "0 judges on the validation images"
            )
        if self.mode == "off":
            refuse_without_effect(
                *(self, ("order", "folds", "tolerance", "level", "trials", "unmeasured")),
                where="combine.",
                because='where combine.mode is "off"',
            )
        if self.mode != "probe" and self.probe != ProbeConfig():
            raise BadInputError(f'combine.probe has no effect where combine.mode is "{self.mode}"; leave it out')
