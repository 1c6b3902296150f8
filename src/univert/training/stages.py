"""All that a run trains: specialists, groups, joint models, members, candidates, and the one that is chosen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from univert.core.files import write_atomic
from univert.losses.registry import LossName
from univert.training.combine.groups import Combination, combine
from univert.training.jobs import TrainedModel
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.specialists import presentations, train_group, train_joint, train_specialist
from univert.training.targets.choice import Candidate, Choice, choose, publish
from univert.training.targets.config import MemberName
from univert.training.targets.ensemble import Ensemble, choose_members, only_specialists
from univert.training.targets.members import Member
from univert.training.unify import planned_presentations, train_unified

BEST = "unified"
DOCUMENT = "candidates/specialists"
ENSEMBLE = "candidates/ensemble"
JOINT_ROWS: dict[LossName, tuple[str, str]] = {
    "triplet": ("joint_triplet", "One joint triplet model"),
    "proxy-nca": ("joint_proxy_nca", "One joint Proxy-NCA model"),
}


@dataclass(frozen=True, kw_only=True)
class Models:
    """All that a run trained.

    Attributes:
        specialists: one a vertical.
        own: the specialists that the unified model learns from, in their groups.
        joint: by loss.
        combination: how the groups were found.
        ensemble: the members of the learning targets, and how they were chosen.
        candidates: what the unified model was chosen from, with their models behind them.
        choice: what was chosen.
        unified: the model of the run.
    """

    specialists: Member
    own: Member
    joint: dict[LossName, TrainedModel]
    combination: Combination
    ensemble: Ensemble
    candidates: tuple[Candidate, ...]
    choice: Choice
    unified: TrainedModel


def train_models(context: RunContext) -> Models:
    """Train whatever the recipe asks for, and choose the unified model.

    Raises:
        BadInputError: the recipe and the catalogue do not fit.
        TrainingError: a training failed; what was done is kept.
    """
    recipe, names = context.recipe, context.vertical_names
    specialists = {name: train_specialist(context, name) for name in names}
    combination = combine(context, specialists)
    write_atomic(context.run.path / "groups.json", json.dumps(combination.to_dict(), indent=1))
    grouped = {name: train_group(context, combination.group_of(name)) for name in names}
    own = Member.of_specialists(context, grouped)
    individual = Member.of_specialists(context, specialists)
    base_presentations = presentations(own.distinct) + planned_presentations(context, recipe.unify)
    joint = {loss: train_joint(context, loss, base_presentations) for loss in _joint_losses(recipe)}
    candidates: list[Candidate] = []
    if recipe.unify.way == "auto":
        for loss, model in joint.items():
            candidates.append(candidate_of(*JOINT_ROWS[loss], model))
    if recipe.unify.way != "ensemble":
        model = train_unified(context, [own], name=DOCUMENT, config=recipe.unify)
        candidates.append(candidate_of("unified_specialists", _own_title(recipe), model, [own]))
    ensemble = only_specialists(own)
    if recipe.unify.way != "specialists":
        ensemble = choose_members(context, own, individual, joint, joint_presentations=base_presentations)
        members = ensemble.members
        if recipe.unify.way == "ensemble" or members != (own,):
            model = train_unified(context, members, name=ENSEMBLE, config=recipe.unify)
            title = f"Unified, from {len(members)} {'members' if len(members) > 1 else 'member'}"
            candidates.append(candidate_of("unified_ensemble", title, model, members))
    choice = choose(context, candidates, individual)
    return Models(
        specialists=individual,
        own=own,
        joint=joint,
        combination=combination,
        ensemble=ensemble,
        candidates=tuple(candidates),
        choice=choice,
        unified=publish(context, choice.chosen.model, BEST),
    )


def _joint_losses(recipe: Recipe) -> list[LossName]:
    """The joint models that the recipe compares with or chooses from.

    Each is shown as many images as the specialists and a unified model that learns from them alone, together. The
    unified model of an ensemble stands on the presentations of all its members and its own: its row says so.
    """
    wanted = [loss for loss, (key, _) in JOINT_ROWS.items() if key in recipe.evaluation.baselines]
    if recipe.unify.way != "specialists":
        named = [MemberName.parse(name) for name in recipe.unify.members]
        wanted += [name.loss for name in named if name.kind == "joint" and name.loss and not name.number]
    return [loss for loss in JOINT_ROWS if loss in wanted]


def candidate_of(key: str, title: str, model: TrainedModel, members: Sequence[Member] = ()) -> Candidate:
    """A model with all that its training cost.

    Args:
        key: short name.
        title: for people.
        model: the model.
        members: of its learning targets.
    """
    together = [*_behind(members), model]
    return Candidate(
        key=key,
        title=title,
        model=model,
        image_presentations=presentations(together),
        seconds=seconds_of(together),
        members=tuple(members),
    )


def _behind(members: Sequence[Member]) -> list[TrainedModel]:
    """All models behind some members, each once."""
    return list({model.key: model for member in members for model in member.models}.values())


def _own_title(recipe: Recipe) -> str:
    return f"Unified, from specialists, {'aligned' if recipe.unify.align else 'plain'}"


def seconds_of(models: list[TrainedModel]) -> float:
    """Seconds of training of several models."""
    return float(sum(model.record["seconds"] for model in models))
