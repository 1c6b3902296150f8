"""What a recipe says about combining verticals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Interval

from univert.core.config import refuse_without_effect


@dataclass(frozen=True, kw_only=True)
class CombineConfig:
    """Which verticals are trained together (Unified, Tables 1 and 2).

    Attributes:
        mode: `probe`: small heads on the untrained base network's cached features foretell what joint training does,
            whether the base network learns or not; `full`: the trials train as the specialists do; `off`: every
            vertical by itself.
        folds: so many models a trial share the labelled training products; those that one of them did not learn from
            are its queries.
        tolerance: a Recall@1 or MAP@R (0 to 1) that is lower by up to this much counts as the same.
        trials: how many combinations are tried at most; the verticals that are left then stay by themselves.
        groups: your own, each a list of verticals, in place of trials.
        count: so many groups of verticals whose images look alike to the untrained base network, in place of trials.
    """

    mode: Literal["off", "probe", "full"] = "probe"
    folds: Annotated[int, Ge(2)] = 3
    tolerance: Annotated[float, Interval(ge=0, lt=1)] = 0.01
    trials: Annotated[int, Ge(1)] = 40
    groups: tuple[tuple[str, ...], ...] = ()
    count: Annotated[int, Ge(1)] | None = None

    def __post_init__(self) -> None:
        tried = ("folds", "tolerance", "trials")
        for unheeded, where in (
            ((*tried, "groups", "count"), self.mode == "off" and 'combine.mode is "off"'),
            (("mode", *tried, "count"), bool(self.groups) and "combine.groups are given"),
            (("mode", *tried), self.count is not None and "combine.count is given"),
        ):
            if where:
                refuse_without_effect(self, unheeded, where="combine.", because=f"where {where}")
