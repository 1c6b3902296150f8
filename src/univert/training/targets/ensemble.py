"""Target ensembles: which models' embeddings the learning targets join, chosen on the validation split.

What is compared are the targets themselves, by predicted verticals: no unified model needs to be trained for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from univert.losses.names import LossName
from univert.metrics.compare import Comparison, Difference
from univert.training.jobs import TrainedModel
from univert.training.run_context import RunContext
from univert.training.specialists import presentations, train_joint
from univert.training.targets.choice import compare_on_validation, points
from univert.training.targets.config import MemberName
from univert.training.targets.learning_targets import targets_by_predicted_vertical
from univert.training.targets.map import map_inputs
from univert.training.targets.members import Member


@dataclass(frozen=True, kw_only=True)
class TriedMember:
    """What became of a member that the recipe names.

    Attributes:
        kept: whether the targets join it.
        difference: MAP@R in the merged validation gallery of the targets with it, against those without; None where
            nothing was compared.
        image_presentations: that its training took.
    """

    name: str
    title: str
    kept: bool
    reason: str
    difference: Difference | None
    image_presentations: int


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """The members of the learning targets, and all that were tried, in the order of the recipe."""

    members: tuple[Member, ...]
    tried: tuple[TriedMember, ...]


def only_specialists(specialists: Member) -> Ensemble:
    """The paper's way: the targets are the specialists' embeddings."""
    cost = presentations(specialists.distinct)
    tried = _tried(specialists, True, "the specialists alone, as in the paper", None, cost)
    return Ensemble(members=(specialists,), tried=(tried,))


def choose_members(
    context: RunContext,
    grouped: Member,
    separate: Member,
    joint: Mapping[LossName, TrainedModel],
    *,
    joint_presentations: int,
) -> Ensemble:
    """Train the members that the recipe names, in its order, and keep those that help on the validation split.

    A member stays if the targets with it are better than those without, beyond chance and tolerance, and worse in no
    vertical. Further seeds of a joint model come in with it: they add nothing of their own, but what is chance in one
    of them cancels out. Joint models that are not trained already may be shown `joint_presentations` images.

    Raises:
        TrainingError: a training failed.
    """
    kept: list[Member] = []
    tried: list[TriedMember] = []
    paid: set[str] = set()
    for text in context.recipe.unify.members:
        name = MemberName.parse(text)
        member = _member(context, name, grouped, separate, joint, joint_presentations)
        cost = presentations([model for model in member.distinct if model.key not in paid])
        paid.update(model.key for model in member.distinct)
        takes, reason, difference = _judged(context, kept, member, name)
        kept += [member] if takes else []
        tried.append(_tried(member, takes, reason, difference, cost))
    return Ensemble(members=tuple(kept), tried=tuple(tried))


def _member(
    context: RunContext,
    name: MemberName,
    grouped: Member,
    separate: Member,
    joint: Mapping[LossName, TrainedModel],
    joint_presentations: int,
) -> Member:
    if name.kind == "specialists":
        return grouped
    if name.kind == "verticals":
        return Member.named("verticals", *separate.models)
    assert name.loss is not None
    if name.number == 0 and name.loss in joint:
        return Member.named(str(name), joint[name.loss])
    again = context.reseeded(context.recipe.seed + 1000 * name.number) if name.number else context
    folder = f"members/{str(name).replace(':', '-').replace('#', '-')}"
    return Member.named(str(name), train_joint(again, name.loss, joint_presentations, name=folder))


def _judged(
    context: RunContext, kept: list[Member], member: Member, name: MemberName
) -> tuple[bool, str, Difference | None]:
    """Whether a member joins those kept so far, why, and by what difference, where that was measured."""
    same = next((other for other in kept if other.key == member.key), None)
    if same:
        return False, f"left out: the same models as {same.name}", None
    if not kept:
        return True, "the first is always in", None
    sibling = next((other for other in kept if MemberName.parse(other.name).loss == name.loss), None)
    if name.number and sibling:
        return True, f"in: another seed of {sibling.name}", None
    comparison = _compare_targets(context, kept, member)
    if comparison is None:
        return True, "taken: there are no validation queries to compare on", None
    return (*judge_member(comparison), comparison.merged["map_at_r"])


def _tried(member: Member, kept: bool, reason: str, difference: Difference | None, cost: int) -> TriedMember:
    return TriedMember(
        name=member.name, title=member.title, kept=kept, reason=reason, difference=difference, image_presentations=cost
    )


def judge_member(comparison: Comparison) -> tuple[bool, str]:
    """Whether a member stays, and why, from the targets without it to those with it."""
    gain = comparison.merged["map_at_r"]
    change = f"{points(gain.difference)} points of MAP@R ({points(gain.low)} to {points(gain.high)})"
    worse = comparison.worse_in_any()
    if worse:
        return False, f"left out: the targets would be worse in {', '.join(worse)}; {change} merged"
    if gain.verdict != "better":
        return False, f"left out: no sure gain, {change}"
    return True, f"in: {change}"


def _compare_targets(context: RunContext, members: list[Member], added: Member) -> Comparison | None:
    config, joined = context.recipe.unify, [*members, added]
    first, second = (partial(targets_by_predicted_vertical, context, each, config) for each in (members, joined))
    return compare_on_validation(context, f"ensemble/{added.name}", map_inputs(context, joined, config), first, second)
