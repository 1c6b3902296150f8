"""The choice: which trained model becomes the run's unified model, by paired comparison on the validation split."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from univert.core.files import publishing
from univert.metrics.compare import Comparison, compare_vectors
from univert.training.jobs import TrainedModel
from univert.training.run_context import RunContext
from univert.training.targets.members import Member
from univert.training.view_arrays import Positions

TOLERANCE = 0.01


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model that could be the unified one.

    Attributes:
        key: short name.
        title: for people.
        model: the model.
        image_presentations: shown in training, its own and those of the models it learned from.
        seconds: of training, likewise.
        members: those of its learning targets; none for a model that learned from labels alone.
    """

    key: str
    title: str
    model: TrainedModel
    image_presentations: int
    seconds: float
    members: tuple[Member, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Step:
    """One paired comparison on the way to the choice.

    Attributes:
        champion: key of the best so far.
        challenger: key of the one that is held against it.
        taken: whether the challenger takes its place.
        reason: for people.
        comparison: the challenger against the champion.
    """

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
        figures: by key, what `candidates` reach on the validation split.
        against_specialists: the chosen model against the specialists, each query searching its own vertical, on the
            validation split; None without queries. It is told, and changes nothing: no candidate may be left otherwise.
    """

    chosen: Candidate
    candidates: tuple[Candidate, ...]
    steps: tuple[Step, ...]
    reason: str
    figures: dict[str, dict[str, float]]
    against_specialists: Comparison | None

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "split": "val",
            "tolerance": TOLERANCE,
            "chosen": self.chosen.key,
            "reason": self.reason,
            "against_specialists": self.against_specialists and self.against_specialists.to_dict(),
            "candidates": [
                {
                    "key": candidate.key,
                    "title": candidate.title,
                    **self.figures.get(candidate.key, {}),
                    "image_presentations": candidate.image_presentations,
                    "seconds": candidate.seconds,
                }
                for candidate in self.candidates
            ],
            "steps": [
                {
                    "champion": step.champion,
                    "challenger": step.challenger,
                    "taken": step.taken,
                    "reason": step.reason,
                    "comparison": step.comparison.to_dict(),
                }
                for step in self.steps
            ],
        }


def choose(context: RunContext, candidates: Sequence[Candidate], specialists: Member) -> Choice:
    """Choose the model that is best on the validation split.

    The candidates are looked at in the order given, simpler ones first. A challenger takes the champion's place if the
    mean of its differences in the merged gallery, in Recall@1 and in MAP@R, is above the tolerance, or above zero and
    one of the two significantly so, and it is significantly worse in no gallery. All of them are trained by then, and
    serving any costs much the same (heads differ, base network and vectors do not): what counts is which is better,
    and a tie goes to the simpler.

    Args:
        context: the run.
        candidates: at least one; without validation queries the last is taken.
        specialists: one a vertical, which the chosen model is held against.
    """
    positions = context.images.validation_queries
    if positions is None or len(candidates) == 1:
        why = "there is no other candidate" if len(candidates) == 1 else "there are no validation queries"
        return Choice(
            chosen=candidates[-1],
            candidates=tuple(candidates),
            steps=(),
            reason=f"{candidates[-1].title}: {why}",
            figures={},
            against_specialists=_against_specialists(context, specialists, candidates[-1].model, positions),
        )
    champion = candidates[0]
    steps = []
    figures: dict[str, dict[str, float]] = {}
    for challenger in candidates[1:]:
        comparison = _compare(context, champion.model, challenger.model, positions)
        figures.setdefault(champion.key, _figures(comparison, "first"))
        figures[challenger.key] = _figures(comparison, "second")
        taken, reason = judge(comparison)
        steps.append(
            Step(champion=champion.key, challenger=challenger.key, taken=taken, reason=reason, comparison=comparison)
        )
        champion = challenger if taken else champion
    return Choice(
        chosen=champion,
        candidates=tuple(candidates),
        steps=tuple(steps),
        reason=f"{champion.title}: {_summary(champion, candidates, steps)}",
        figures=figures,
        against_specialists=_against_specialists(context, specialists, champion.model, positions),
    )


def _against_specialists(
    context: RunContext, specialists: Member, model: TrainedModel, positions: Positions | None
) -> Comparison | None:
    if positions is None:
        return None

    def compare() -> dict[str, Any]:
        return compare_vectors(
            specialists.vectors(context).clean(positions),
            context.features.source.embed_all(model.embedder, positions),
            context.images.products[positions],
            context.images.names_of(positions),
            first_routed=True,
            second_routed=True,
            tolerance=TOLERANCE,
            seed=context.recipe.seed,
        ).to_dict()

    inputs = [specialists.key, model.key, TOLERANCE, context.recipe.seed]
    return Comparison.from_dict(context.stages.remembered("choice/against-specialists", inputs, compare))


def _compare(context: RunContext, first: TrainedModel, second: TrainedModel, positions: Positions) -> Comparison:
    def compare() -> dict[str, Any]:
        vectors = [context.features.source.embed_all(model.embedder, positions) for model in (first, second)]
        products, verticals = context.images.products[positions], context.images.names_of(positions)
        seed = context.recipe.seed
        return compare_vectors(vectors[0], vectors[1], products, verticals, tolerance=TOLERANCE, seed=seed).to_dict()

    inputs = [first.key, second.key, TOLERANCE, context.recipe.seed]
    return Comparison.from_dict(context.stages.remembered(f"choice/{second.name}", inputs, compare))


def judge(comparison: Comparison) -> tuple[bool, str]:
    """Whether a challenger takes the champion's place, and why."""
    merged = comparison.merged
    worse = comparison.worse_in_any()
    change = f"{_change(merged['recall_at_1'].difference)} R@1, {_change(merged['map_at_r'].difference)} MAP@R merged"
    if worse:
        return False, f"worse in {', '.join(worse)} ({change})"
    gain = float(np.mean([difference.difference for difference in merged.values()]))
    significant = any(each.difference > 0 and each.p_adjusted < 1 - comparison.level for each in merged.values())
    if gain > 0 and significant:
        return True, f"better and nowhere worse ({change})"
    if gain > comparison.tolerance:
        return (True, f"ahead beyond the tolerance, if not beyond chance, and nowhere worse ({change})")
    return False, f"no gain beyond the tolerance ({change})"


def publish(context: RunContext, model: TrainedModel, name: str) -> TrainedModel:
    """A copy of a trained model in another folder of the run, made once."""
    if model.name == name:
        return model
    folder = context.run.path / name
    if context.run.finished(name, model.key) is None or not (folder / "model.safetensors").exists():
        context.run.forget(name)
        with publishing(folder, overwrite=True) as place:
            shutil.copytree(model.folder, place, dirs_exist_ok=True)
        context.run.finish(name, model.key, {"copied_from": model.name})
    return TrainedModel(name=name, key=model.key, record=model.record, folder=folder, device=model.device)


def _figures(comparison: Comparison, side: str) -> dict[str, float]:
    within = [getattr(figures["recall_at_1"], side) for figures in comparison.verticals.values()]
    return {
        "recall_at_1": getattr(comparison.merged["recall_at_1"], side),
        "map_at_r": getattr(comparison.merged["map_at_r"], side),
        "mean_within_recall_at_1": float(np.mean(within)),
    }


def _change(difference: float) -> str:
    return f"{100 * difference:+.1f}"


def _summary(champion: Candidate, candidates: Sequence[Candidate], steps: Sequence[Step]) -> str:
    titles = {candidate.key: candidate.title for candidate in candidates}
    parts = []
    for step in steps:
        if champion.key == step.challenger:
            parts.append(f"{step.reason}, against {titles[step.champion]}")
        elif champion.key == step.champion:
            parts.append(f"{titles[step.challenger]}, held against it: {step.reason}")
    return "; ".join(parts)
