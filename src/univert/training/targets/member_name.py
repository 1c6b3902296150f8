"""The names of members of the learning targets, as recipes write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from univert.core.errors import BadInputError
from univert.losses.names import LOSSES, LossName

MemberKind = Literal["specialists", "verticals", "joint"]


@dataclass(frozen=True, kw_only=True)
class MemberName:
    """A member as a recipe names it: `specialists`, `verticals`, `specialists:proxy-nca`, `joint:proxy-nca#2`.

    Attributes:
        kind: `specialists`: a model for each vertical (the recipe's own: for each group of them); `verticals`: the
            recipe's own, each vertical by itself whatever the groups; `joint`: one model for all.
        loss: None for the recipe's own specialists.
        number: tells models apart that differ in nothing but their seed.
    """

    kind: MemberKind
    loss: LossName | None
    number: int = 0

    @classmethod
    def parse(cls, text: str) -> MemberName:
        """Read a name.

        Raises:
            BadInputError: it is none; the message says what a name looks like.
        """
        body, mark, number = text.partition("#")
        kind, _, loss = body.partition(":")
        known = (body in ("specialists", "verticals") and not mark) or (
            kind in ("specialists", "joint") and loss in LOSSES
        )
        if not known or (mark and not number.isdecimal()):
            raise BadInputError(
                f"a member is `specialists`, `verticals`, `specialists:LOSS` or `joint:LOSS`, these with `#1`, `#2` "
                f"for more seeds; got {text!r}; losses: {', '.join(LOSSES)}"
            )
        return cls(kind=kind, loss=loss or None, number=int(number or 0))  # type: ignore[arg-type]

    def __str__(self) -> str:
        """As the recipe writes it."""
        loss = f":{self.loss}" if self.loss else ""
        return f"{self.kind}{loss}{f'#{self.number}' if self.number else ''}"

    @property
    def title(self) -> str:
        """For people."""
        what = {
            "specialists": "a specialist a vertical" if self.loss else "the specialists, in their groups",
            "verticals": "the specialists, each vertical by itself",
            "joint": "one joint model",
        }[self.kind]
        again = f", again (seed {self.number})" if self.number else ""
        return f"{what}{f', {self.loss}' if self.loss else ''}{again}"
