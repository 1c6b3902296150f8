"""The comparison: every model of a run as a row, measured on the test split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from univert.core.config import from_plain
from univert.data.samplers import Positions
from univert.metrics.compare import Comparison, compare_vectors
from univert.metrics.evaluate import Evaluation, evaluate_vectors
from univert.metrics.inputs import Asking
from univert.training.run_context import RunContext
from univert.training.specialists import presentations, seconds_of
from univert.training.targets.choice import Candidate
from univert.training.targets.members import Member

Vectors = Float[np.ndarray, "N D"]


BEST = "unified"
"""Key and folder of the model of the run."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model of the comparison.

    Attributes:
        key: short name.
        title: for people.
        note: what to know when reading its figures.
        vectors: from positions in the catalogue to one row each.
        inputs: fingerprint of all the vectors depend on.
        image_presentations: images shown in training, its own and those of the models it learned from.
        seconds: of training, likewise.
        routed: its vectors can be compared within a vertical only.
    """

    key: str
    title: str
    note: str
    vectors: Callable[[Positions], Vectors]
    inputs: str
    image_presentations: int = 0
    seconds: float = 0.0
    routed: bool = False


@dataclass(frozen=True, kw_only=True)
class ComparedModel:
    """A model of the comparison and its figures on the test split."""

    row: Row
    evaluation: Evaluation


@dataclass(frozen=True, kw_only=True)
class RowComparison:
    """The paired comparison of two rows, by their keys, the second held against the first; its title is for people."""

    title: str
    first: str
    second: str
    comparison: Comparison


def specialists_row(context: RunContext, key: str, title: str, member: Member) -> Row:
    """Specialists, each embedding the images of its own vertical (and source, where they are divided by it)."""
    known = "vertical and source" if context.recipe.specialists.by_source else "vertical"
    return Row(
        key=key,
        title=title,
        note=f"told the true {known} of each query, and searching that {known} alone",
        vectors=lambda positions: member.vectors(context).clean(positions),
        inputs=member.key,
        image_presentations=presentations(member.distinct),
        seconds=seconds_of(member.distinct),
        routed=True,
    )


def model_row(context: RunContext, candidate: Candidate, note: str) -> Row:
    """A model for all verticals."""
    return Row(
        key=candidate.key,
        title=candidate.title,
        note=note,
        vectors=lambda positions: context.features.source.embed_all(candidate.model.embedder, positions),
        inputs=candidate.model.key,
        image_presentations=candidate.image_presentations,
        seconds=candidate.seconds,
    )


class TestSplit:
    """The test images, and what the rows make of them.

    Attributes:
        measurable: whether some product has two test images; without, there is nothing to measure.
        split: `test`, or, where there are no test images at all, the one whose images the report shows instead.
        positions: its images, of verticals that have a specialist.
        queries: which of them ask, the others being the gallery; None: each asks all others.
        unseen_brands: which of them have a brand that training never had.
    """

    __test__ = False  # not a test case

    def __init__(self, context: RunContext) -> None:
        self._context = context
        images = context.images
        self.measurable = images.queries_of("test") is not None
        self.split = next(
            name for name in ("test", "val", "train") if ((images.splits == name) & (images.verticals >= 0)).any()
        )
        self.positions = np.flatnonzero((images.splits == self.split) & (images.verticals >= 0))
        self.products = list(context.images.catalogue.column("product")[self.positions])
        self.verticals = context.images.names_of(self.positions)
        self.queries = images.asking(self.positions)
        self.unseen_brands = images.of_unseen_brands[self.positions]
        self._vectors: dict[str, Vectors] = {}

    def vectors(self, row: Row) -> Vectors:
        """A row's embeddings of the test images, computed once."""
        if row.inputs not in self._vectors:
            self._vectors[row.inputs] = row.vectors(self.positions)
        return self._vectors[row.inputs]

    def _columns(self, routed: bool) -> tuple[Any, list[str], Asking]:
        """Products, verticals and who asks."""
        if routed:
            return self._context.images.specialists_columns(self.positions)
        return self.products, self.verticals, self.queries

    def evaluate(self, row: Row) -> Evaluation:
        """A row's figures; measured before with the same inputs, it is not measured again."""
        config, seed = self._context.recipe.evaluation, self._context.recipe.seed
        products, verticals, queries = self._columns(row.routed)
        record = self._context.stages.remembered(
            f"evaluation/{row.key}",
            [row.inputs, row.routed, config.resamples, seed],
            lambda: evaluate_vectors(
                self.vectors(row),
                products,
                verticals,
                queries=queries,
                routed=row.routed,
                unseen_brands=self.unseen_brands,
                resamples=config.resamples,
                seed=seed,
            ),
        )
        return from_plain(Evaluation, record, where="evaluation")

    def compare(self, first: Row, second: Row) -> RowComparison:
        """The paired comparison of two rows, as the report shows it.

        Against specialists, both search the query's own vertical: the specialists know no other way.
        """
        config, seed = self._context.recipe.evaluation, self._context.recipe.seed
        routed = first.routed or second.routed
        products, verticals, queries = self._columns(routed)
        record = self._context.stages.remembered(
            f"comparison/{first.key}-{second.key}",
            [first.inputs, second.inputs, routed, config.resamples, seed],
            lambda: compare_vectors(
                self.vectors(first),
                self.vectors(second),
                products,
                verticals,
                queries=queries,
                first_routed=routed,
                second_routed=routed,
                unseen_brands=self.unseen_brands,
                resamples=config.resamples,
                seed=seed,
            ),
        )
        title = f"{second.title} against {first.title[0].lower()}{first.title[1:]}"
        if routed:
            title += ", each query searching its own vertical"
        comparison = from_plain(Comparison, record, where="comparison")
        return RowComparison(title=title, first=first.key, second=second.key, comparison=comparison)


def comparisons(test: TestSplit, rows: list[Row]) -> tuple[RowComparison, ...]:
    """The run's model against all others of these, then its specialists against the untrained base network."""
    by_key = {row.key: row for row in rows}
    against = ("specialists", "joint_long", "joint_proxy_nca", "joint_triplet", "base")
    pairs = [(key, BEST) for key in against] + [("base", "specialists")]
    there = [(by_key[first], by_key[second]) for first, second in pairs if {first, second} <= by_key.keys()]
    return tuple(test.compare(first, second) for first, second in there if first.inputs != second.inputs)
