"""Which trained model becomes the run's unified model, by paired comparison on the validation split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from univert.core.config import from_plain, to_plain
from univert.metrics.compare import Comparison, compare_vectors
from univert.training.jobs import TrainedModel
from univert.training.run_context import RunContext
from univert.training.specialists import presentations, seconds_of
from univert.training.targets.members import Member
from univert.training.view_arrays import Positions, Rows

TOLERANCE = 0.01
"""A loss of Recall@1 or MAP@R (0 to 1) up to this much counts as none."""

Embed = Callable[[Positions], Rows]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model that could be the unified one.

    Attributes:
        members: those of its learning targets; none for a model that learned from labels alone.
    """

    key: str
    title: str
    model: TrainedModel
    members: tuple[Member, ...] = ()

    @property
    def image_presentations(self) -> int:
        """Images shown in training, its own and that of the models it learned from, each model once."""
        return presentations(self._trained)

    @property
    def seconds(self) -> float:
        """Of training, likewise."""
        return seconds_of(self._trained)

    @property
    def _trained(self) -> list[TrainedModel]:
        behind = {model.key: model for member in self.members for model in member.models}
        return [*behind.values(), self.model]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One paired comparison, from the key of the best so far to that of its challenger, and whether that is taken."""

    champion: str
    challenger: str
    taken: bool
    reason: str
    comparison: Comparison


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        chosen: the candidate.
        candidates: all, in the order in which they were looked at.
        steps: the comparisons; empty where there was nothing to compare.
        reason: the choice in one sentence.
        figures: by key, what `candidates` reach on the validation split: `recall_at_1`, `map_at_r`,
            `mean_within_recall_at_1`; empty where nothing was compared.
        against_specialists: from the specialists to the chosen model, each query searching its own vertical, on the
            validation split; None without queries. It is reported and decides nothing.
    """

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    steps: tuple[Step, ...]
    reason: str
    figures: dict[str, dict[str, float]]
    against_specialists: Comparison | None

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        shown = ("key", "title", "image_presentations", "seconds")
        return {
            "split": "val",
            "tolerance": TOLERANCE,
            "chosen": self.chosen.key,
            "reason": self.reason,
            "against_specialists": to_plain(self.against_specialists),
            "candidates": [
                {name: getattr(each, name) for name in shown} | self.figures.get(each.key, {})
                for each in self.candidates
            ],
            "steps": to_plain(self.steps),
        }


def choose(context: RunContext, candidates: Sequence[Candidate], specialists: Member) -> Choice:
    """Choose the candidate that is best on the validation split.

    Without validation queries the last is taken. The chosen one is compared with the specialists, one a vertical.
    """
    embed_all, champion = context.features.source.embed_all, candidates[0]
    steps: list[Step] = []
    figures: dict[str, dict[str, float]] = {}
    for challenger in candidates[1:]:
        models = champion.model, challenger.model
        comparison = compare_on_validation(
            context,
            f"choice/{challenger.model.name}",
            [model.key for model in models],
            *(partial(embed_all, model.embedder) for model in models),
        )
        if comparison is None:
            champion = challenger
            continue
        figures.setdefault(champion.key, _figures(comparison, "first"))
        figures[challenger.key] = _figures(comparison, "second")
        taken, reason = judge(comparison)
        steps.append(
            Step(champion=champion.key, challenger=challenger.key, taken=taken, reason=reason, comparison=comparison)
        )
        champion = challenger if taken else champion
    why = _summary(champion, candidates, steps) if steps else "there are no validation queries"
    against_specialists = compare_on_validation(
        context,
        "choice/against-specialists",
        [specialists.key, champion.model.key],
        lambda positions: specialists.vectors(context).clean(positions),
        lambda positions: embed_all(champion.model.embedder, positions),
        within_verticals=True,
    )
    return Choice(
        chosen=champion,
        candidates=tuple(candidates),
        steps=tuple(steps),
        reason=f"{champion.title}: {why if len(candidates) > 1 else 'there is no other candidate'}",
        figures=figures,
        against_specialists=against_specialists,
    )


def judge(comparison: Comparison) -> tuple[bool, str]:
    """Whether a challenger replaces the champion, and why, from the champion to the challenger.

    It must have the higher MAP@R in the merged gallery, and be worse in no gallery, nor for brands never seen. MAP@R
    decides, because it looks at all images of a product and so varies less than Recall@1; and no gain is too small,
    because all candidates cost the same to use.
    """
    merged = comparison.merged
    worse = comparison.worse_in_any()
    change = f"{points(merged['recall_at_1'].difference)} R@1, {points(merged['map_at_r'].difference)} MAP@R merged"
    if worse:
        return False, f"worse in {', '.join(worse)} ({change})"
    if merged["map_at_r"].difference <= 0:
        return False, f"not ahead in MAP@R ({change})"
    if merged["map_at_r"].verdict == "better":
        return True, f"better and nowhere worse ({change})"
    return True, f"ahead, if not beyond chance, and nowhere worse ({change})"


def compare_on_validation(
    context: RunContext, stage: str, inputs: list[Any], first: Embed, second: Embed, *, within_verticals: bool = False
) -> Comparison | None:
    """Compare two ways to embed the validation images, in the merged gallery or each query within its own vertical.

    The record is kept under `stage` for as long as `inputs`, all that the embeddings depend on, stay the same. None
    where no validation image is a query.
    """
    positions = context.images.validation_queries
    if positions is None:
        return None

    images = context.images
    products, verticals = images.products[positions], images.names_of(positions)
    queries = images.asking(positions)
    if within_verticals:
        products, verticals, queries = images.specialists_columns(positions)

    def compare() -> Comparison:
        return compare_vectors(
            first(positions),
            second(positions),
            products,
            verticals,
            queries=queries,
            first_routed=within_verticals,
            second_routed=within_verticals,
            unseen_brands=images.of_unseen_brands[positions],
            tolerance=TOLERANCE,
            seed=context.recipe.seed,
        )

    record = context.stages.remembered(stage, [inputs, TOLERANCE, context.recipe.seed], compare)
    return from_plain(Comparison, record, where=stage)


def _figures(comparison: Comparison, side: str) -> dict[str, float]:
    within = [getattr(figures["recall_at_1"], side) for figures in comparison.verticals.values()]
    return {
        "recall_at_1": getattr(comparison.merged["recall_at_1"], side),
        "map_at_r": getattr(comparison.merged["map_at_r"], side),
        "mean_within_recall_at_1": float(np.mean(within)),
    }


def points(difference: float) -> str:
    """A difference in points, with its sign."""
    return f"{100 * difference:+.1f}"


def _summary(champion: Candidate, candidates: Sequence[Candidate], steps: Sequence[Step]) -> str:
    titles = {candidate.key: candidate.title for candidate in candidates}
    won = [f"{step.reason}, against {titles[step.champion]}" for step in steps if step.challenger == champion.key]
    held = [
        f"{titles[step.challenger]}, compared with it: {step.reason}" for step in steps if step.champion == champion.key
    ]
    return "; ".join([*won, *held])
