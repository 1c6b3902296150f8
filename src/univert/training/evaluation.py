"""The comparison: every model of a run as a row, measured on the test split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int64

from univert.core.errors import BadInputError
from univert.core.json_record import JsonRecord
from univert.metrics.compare import Comparison, compare_vectors
from univert.metrics.evaluate import Evaluation, evaluate_vectors
from univert.metrics.inputs import has_queries
from univert.training.jobs import TrainedModel
from univert.training.run_context import RunContext
from univert.training.specialists import presentations
from univert.training.stages import BEST, DOCUMENT, JOINT_ROWS, Models, candidate_of, seconds_of
from univert.training.targets.choice import Candidate
from univert.training.targets.members import Member
from univert.training.unify import train_unified

Positions = Int64[np.ndarray, "N"]
Vectors = Float[np.ndarray, "N D"]


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
    """A row of the comparison and what it reaches on the test split."""

    row: Row
    evaluation: Evaluation


@dataclass(frozen=True, kw_only=True)
class RowComparison(JsonRecord):
    """A paired comparison of two rows.

    Attributes:
        title: for people.
        first: key of the row that the other is held against.
        second: key of the row that is judged.
        comparison: second minus first.
    """

    title: str
    first: str
    second: str
    comparison: Comparison


def comparison_rows(context: RunContext, models: Models) -> tuple[list[Row], list[TrainedModel]]:
    """The comparison, in the order people read it, and all models in it; trains the variants that are asked for."""
    recipe, own = context.recipe, models.own
    trained = [*models.specialists.distinct, *own.distinct, *models.joint.values()]
    rows = [
        Row(
            key="base",
            title="Untrained base network",
            note="pooled features of the ImageNet network",
            vectors=context.base_vectors,
            inputs=context.base_fingerprint,
        ),
        _specialists_row(context, "specialists", "Specialists, one a vertical", models.specialists),
    ]
    if own.key != models.specialists.key:
        rows.append(_specialists_row(context, "groups", "Specialists, one a group", own))
    candidates = {candidate.key: candidate for candidate in models.candidates}
    for loss, model in models.joint.items():
        key, title = JOINT_ROWS[loss]
        rows.append(_model_row(context, candidate_of(key, title, model), "all verticals at once"))
    targets = replace(recipe.unify.targets, align=False, reference="auto", rounds=1)
    plain = replace(recipe.unify, targets=targets)
    aligned = replace(recipe.unify, targets=replace(recipe.unify.targets, align=True))
    variants = [
        ("unified_plain", "Unified, plain", "learns from specialists alone, in their own spaces", plain),
        (
            "unified_labelled",
            "Unified, aligned, labelled only",
            "without the unlabelled images",
            replace(aligned, unlabelled=False),
        ),
        ("unified_aligned", "Unified, aligned", "learns from specialists alone", aligned),
    ]
    for key, title, note, config in variants:
        if key in recipe.evaluation.baselines:
            same = config == recipe.unify and "unified_specialists" in candidates
            name = DOCUMENT if same else f"baselines/{key}"
            variant = train_unified(context, [own], name=name, config=config)
            trained.append(variant)
            rows.append(_model_row(context, candidate_of(key, title, variant, [own]), note))
    for candidate in models.candidates:
        shown = candidate.key in ("unified_ensemble", "unified_polished")
        if shown and candidate is not models.choice.chosen:
            rows.append(_model_row(context, candidate, "not chosen"))
    chosen = models.choice.chosen
    best = replace(chosen, key=BEST, title=_chosen_title(chosen))
    rows.append(_model_row(context, best, "the model of this run"))
    return rows, [*trained, *(candidate.model for candidate in models.candidates)]


def _chosen_title(chosen: Candidate) -> str:
    return chosen.title if chosen.title.startswith("Unified") else f"Unified: {chosen.title.lower()}"


def _specialists_row(context: RunContext, key: str, title: str, member: Member) -> Row:
    return Row(
        key=key,
        title=title,
        note="told the true vertical of each query, and searching that vertical alone",
        vectors=lambda positions: member.vectors(context).clean(positions),
        inputs=member.key,
        image_presentations=presentations(member.distinct),
        seconds=seconds_of(member.distinct),
        routed=True,
    )


def _model_row(context: RunContext, candidate: Candidate, note: str) -> Row:
    return Row(
        key=candidate.key,
        title=candidate.title,
        note=note,
        vectors=lambda positions: context.source.embed_all(candidate.model.embedder, positions),
        inputs=candidate.model.key,
        image_presentations=candidate.image_presentations,
        seconds=candidate.seconds,
    )


class TestSplit:
    """The test images, and what the rows make of them.

    Args:
        context: the run.

    Raises:
        BadInputError: no product has two test images, so that nothing could be measured.
    """

    __test__ = False  # not a test case

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self.positions = np.flatnonzero((context.splits == "test") & (context.verticals >= 0))
        self.products = list(context.catalogue.column("product")[self.positions])
        self.verticals = context.names_of(self.positions)
        codes = context.products[self.positions]
        if not has_queries(codes):
            raise BadInputError(
                f"the test split needs a product with two images to measure on, got {(codes >= 0).sum()} labelled "
                "images; add some, or build the catalogue anew and let it choose the splits"
            )
        self._vectors: dict[str, Vectors] = {}

    def vectors(self, row: Row) -> Vectors:
        """A row's embeddings of the test images, computed once."""
        if row.inputs not in self._vectors:
            self._vectors[row.inputs] = row.vectors(self.positions)
        return self._vectors[row.inputs]

    def evaluate(self, row: Row) -> Evaluation:
        """A row's figures; measured before with the same inputs, it is not measured again."""
        config, seed = self._context.recipe.evaluation, self._context.recipe.seed
        record = self._context.remembered(
            f"evaluation/{row.key}",
            [row.inputs, row.routed, config.resamples, seed],
            lambda: evaluate_vectors(
                self.vectors(row),
                self.products,
                self.verticals,
                routed=row.routed,
                resamples=config.resamples,
                seed=seed,
            ).to_dict(),
        )
        return Evaluation.from_dict(record)

    def compare(self, first: Row, second: Row) -> RowComparison:
        """The paired comparison of two rows.

        Against specialists, both search the query's own vertical: the specialists know no other way.
        """
        config, seed = self._context.recipe.evaluation, self._context.recipe.seed
        record = self._context.remembered(
            f"comparison/{first.key}-{second.key}",
            [first.inputs, second.inputs, first.routed or second.routed, config.resamples, seed],
            lambda: compare_vectors(
                self.vectors(first),
                self.vectors(second),
                self.products,
                self.verticals,
                first_routed=first.routed or second.routed,
                second_routed=first.routed or second.routed,
                resamples=config.resamples,
                seed=seed,
            ).to_dict(),
        )
        title = f"{second.title} against {first.title[0].lower()}{first.title[1:]}"
        if first.routed or second.routed:
            title += ", each query searching its own vertical"
        return RowComparison(title=title, first=first.key, second=second.key, comparison=Comparison.from_dict(record))


def comparisons(test: TestSplit, rows: list[Row]) -> list[RowComparison]:
    """The run's model against its specialists, the joint models and the untrained base network."""
    by_key = {row.key: row for row in rows}
    against = ("specialists", "joint_proxy_nca", "joint_triplet", "base")
    return [test.compare(by_key[key], by_key[BEST]) for key in against if key in by_key]
