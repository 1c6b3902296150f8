"""Members: the models whose embeddings make up the learning targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from univert.core.files import fingerprint
from univert.models.embedder import Embedder
from univert.training.jobs import TrainedModel
from univert.training.run_context import RunContext
from univert.training.targets.config import MemberName
from univert.training.view_arrays import Positions, Rows, ViewArrays, by_parts

ROWS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True)
class Member:
    """A model for all verticals, or one for each.

    Attributes:
        name: as in the recipe.
        title: for people.
        models: one for each of the run's verticals, in their order (a group's model comes once for each of its
            verticals); or a single one for all.
    """

    name: str
    title: str
    models: tuple[TrainedModel, ...]

    @classmethod
    def named(cls, name: str, *models: TrainedModel) -> Member:
        """A member with the title of its name.

        Raises:
            BadInputError: recipes know no such name.
        """
        return cls(name=name, title=MemberName.parse(name).title, models=models)

    @classmethod
    def of_specialists(cls, context: RunContext, specialists: Mapping[str, TrainedModel]) -> Member:
        """The specialists, one for each vertical of the run, as one member."""
        return cls.named("specialists", *(specialists[vertical] for vertical in context.images.vertical_names))

    @property
    def by_vertical(self) -> bool:
        """Whether the vertical of an image decides which model embeds it."""
        return len(self.models) > 1

    @property
    def distinct(self) -> list[TrainedModel]:
        """Its models, each once."""
        return list({model.key: model for model in self.models}.values())

    @property
    def key(self) -> str:
        """Fingerprint of all that its embeddings depend on."""
        return fingerprint([model.key for model in self.models])

    @cached_property
    def embedders(self) -> tuple[Embedder, ...]:
        """Its models' networks, ready for inference; equal models share one."""
        loaded = {model.key: model.embedder.eval() for model in self.distinct}
        return tuple(loaded[model.key] for model in self.models)

    @property
    def width(self) -> int:
        """Of its widest model's embeddings."""
        return max(embedder.size for embedder in self.embedders)

    def vectors(self, context: RunContext) -> ViewArrays:
        """Embeddings of all images as they are, each by its vertical's model; computed once, then read from disk.

        Narrower embeddings than the widest are filled up with zeros, as are the rows of images whose vertical is
        unknown, where only a vertical's model could embed them.
        """
        name = f"member-{self.key}"
        compute = by_parts(lambda positions, _: self._rows(context, positions), ROWS_AT_ONCE)
        return context.stages.once(
            name, lambda: context.features.view_arrays(name, self.title, self.width, compute, views=0)
        )

    def _rows(self, context: RunContext, positions: Positions) -> Rows:
        if not self.by_vertical:
            return context.features.source.embed_all(self.embedders[0], positions)
        verticals = context.images.verticals[positions]
        rows = np.zeros((len(positions), self.width), np.float32)
        for vertical in np.unique(verticals[verticals >= 0]):
            here = verticals == vertical
            embedder = self.embedders[vertical]
            rows[here, : embedder.size] = context.features.source.embed_all(embedder, positions[here])
        return rows
