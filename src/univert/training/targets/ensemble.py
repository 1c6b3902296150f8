"""Target ensembles: which models' embeddings the learning targets join, chosen on the validation split.

Members are tried in the recipe's order. A member is trained if the budget still covers it, and it stays if the targets
with it are better on the validation images than those without, and worse in no vertical.

What is compared are the targets themselves, which is quick: no unified model needs to be trained for it. The
specialists' part of a target depends on knowing the vertical of an image, which a unified model does not. The
verticals are therefore predicted here (see `Router`), and the specialists count by their probability: what the targets
then reach in the merged gallery is close to what a unified model learns from them.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from univert.core.config import to_plain
from univert.losses.names import LossName, compares_images
from univert.metrics.compare import Comparison, Difference, compare_vectors
from univert.training.jobs import TrainedModel
from univert.training.label_config import SpecialistsConfig, with_positives
from univert.training.run_context import RunContext
from univert.training.specialists import presentations, train_joint, train_specialist
from univert.training.targets.config import TargetsConfig
from univert.training.targets.map import fit_target_map
from univert.training.targets.member_name import MemberName
from univert.training.targets.members import Member
from univert.training.targets.vertical_prediction import trusted

ROWS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What became of a member.

    Attributes:
        name: as in the recipe.
        title: for people.
        kept: whether the targets join it.
        reason: why, for people.
        difference: MAP@R in the merged validation gallery of the targets with it, against those without; None where
            nothing was compared.
        image_presentations: that its training took; 0 where it was not trained.
    """

    name: str
    title: str
    kept: bool
    reason: str
    difference: Difference | None
    image_presentations: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """The members of the learning targets, and how they were chosen.

    Attributes:
        members: those that are in.
        tried: all that were considered, in the order of the recipe.
        budget_presentations: what they might cost.
    """

    members: tuple[Member, ...]
    tried: tuple[Tried, ...]
    budget_presentations: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; `distortion` is added by who fits the targets."""
        return {"members": [tried.to_dict() for tried in self.tried], "budget_presentations": self.budget_presentations}


def only_specialists(own: Member) -> Ensemble:
    """The document's way: the targets are the specialists' embeddings."""
    cost = presentations(own.distinct)
    why = "the document's way: the specialists alone"
    tried = _tried(MemberName.parse("specialists"), True, why, None, cost)
    return Ensemble(members=(own,), tried=(tried,), budget_presentations=cost)


def choose_members(
    context: RunContext,
    own: Member,
    individual: Member,
    joint: Mapping[LossName, TrainedModel],
    *,
    base_presentations: int,
) -> Ensemble:
    """Train the members of the recipe within its budget, and keep those that help on the validation split.

    Args:
        context: the run.
        own: the recipe's specialists, in their groups.
        individual: the same for each vertical by itself.
        joint: joint models that are trained already, by loss.
        base_presentations: image presentations of the recipe's specialists and of a unified model from them.

    Raises:
        TrainingError: a training failed.
    """
    config = context.recipe.unify
    budget = int(config.budget * base_presentations)
    ready = _ready(context, own, individual, joint)
    kept: list[Member] = []
    tried: list[Tried] = []
    spent = 0
    paid: set[str] = set()
    for text in config.members:
        name = MemberName.parse(text)
        if str(name) in ready and any(ready[str(name)].key == member.key for member in kept):
            same = next(member.name for member in kept if member.key == ready[str(name)].key)
            tried.append(_tried(name, False, f"left out: the same models as {same}", None, 0))
            continue
        cost = _expected(name, individual, ready, base_presentations, paid)
        if kept and spent + cost > budget:
            reason = f"left out: {cost:,} image presentations more would exceed the budget of {budget:,}"
            tried.append(_tried(name, False, reason, None, 0))
            continue
        member = ready.get(str(name)) or _train_member(context, name, base_presentations)
        cost = presentations([model for model in member.distinct if model.key not in paid])
        paid.update(model.key for model in member.distinct)
        spent += cost
        comparison = _compare(context, kept, [*kept, member]) if kept and config.choose else None
        if comparison is None:
            reason = "the first is always in" if not kept else "taken without asking (choose = false)"
            if kept and config.choose:
                reason = "taken: there are no validation queries to compare on"
            kept.append(member)
            tried.append(_tried(name, True, reason, None, cost))
            continue
        takes, reason = _judge(comparison)
        if takes:
            kept.append(member)
        tried.append(_tried(name, takes, reason, comparison.merged["map_at_r"], cost))
    return Ensemble(members=tuple(kept), tried=tuple(tried), budget_presentations=budget)


def blind_targets(
    context: RunContext, members: Sequence[Member], config: TargetsConfig, positions: np.ndarray
) -> Float[np.ndarray, "N D"]:
    """Learning targets of images as they would be if nobody knew the images' verticals.

    Args:
        context: the run.
        members: whose embeddings the targets join.
        config: how.
        positions: of the images, which are shown as they are.
    """
    found = fit_target_map(context, members, config, unlabelled=context.recipe.unify.unlabelled)
    parts = [np.zeros((0, context.target_size), np.float32)]
    for start in range(0, len(positions), ROWS_AT_ONCE):
        chunk = positions[start : start + ROWS_AT_ONCE]
        weights = trusted(context.features.vertical_probabilities(chunk), 1.0, weighted=True)
        parts.append(found.rows(context, chunk, np.zeros(len(chunk), np.int64), weights))
    return np.concatenate(parts)


def _compare(context: RunContext, without: list[Member], joined: list[Member]) -> Comparison | None:
    positions = context.images.validation_queries
    if positions is None:
        return None
    config = replace(context.recipe.unify.targets, offset=0.0)

    def compare() -> dict[str, Any]:
        first, second = (blind_targets(context, members, config, positions) for members in (without, joined))
        products, verticals = context.images.products[positions], context.images.names_of(positions)
        found = compare_vectors(first, second, products, verticals, seed=context.recipe.seed)
        return found.to_dict()

    recipe = context.recipe
    inputs = [
        [member.key for member in joined],
        to_plain(config),
        [recipe.unify.unlabelled, recipe.data.unsorted, context.target_size],
        recipe.seed,
    ]
    return Comparison.from_dict(context.stages.remembered(f"ensemble/{joined[-1].name}", inputs, compare))


def _judge(comparison: Comparison) -> tuple[bool, str]:
    gain = comparison.merged["map_at_r"]
    change = f"{100 * gain.difference:+.1f} points of MAP@R ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
    worse = comparison.worse_in_any()
    if worse:
        return False, f"left out: the targets would be worse in {', '.join(worse)}; {change} merged"
    if gain.difference <= 0:
        return False, f"left out: it gains nothing, {change}"
    return True, f"in: {change}"


def _tried(name: MemberName, kept: bool, reason: str, difference: Difference | None, image_presentations: int) -> Tried:
    return Tried(
        name=str(name),
        title=name.title,
        kept=kept,
        reason=reason,
        difference=difference,
        image_presentations=image_presentations,
    )


def _ready(
    context: RunContext, own: Member, individual: Member, joint: Mapping[LossName, TrainedModel]
) -> dict[str, Member]:
    """The members that are trained already, by name."""
    models = {
        "verticals": individual.models,
        f"specialists:{context.recipe.specialists.loss}": individual.models,
        **{f"joint:{loss}": (model,) for loss, model in joint.items()},
    }
    titled = {
        name: Member(name=name, title=MemberName.parse(name).title, models=trained) for name, trained in models.items()
    }
    return {"specialists": own, **titled}


def _expected(
    name: MemberName, individual: Member, ready: Mapping[str, Member], base_presentations: int, paid: Container[str]
) -> int:
    """Image presentations that a member's training takes, at most; models of earlier members are paid for."""
    if str(name) in ready:
        return presentations([model for model in ready[str(name)].distinct if model.key not in paid])
    return base_presentations if name.kind == "joint" else presentations(individual.distinct)


def _train_member(context: RunContext, name: MemberName, base_presentations: int) -> Member:
    assert name.loss is not None  # those without are ready
    again = context if not name.number else context.reseeded(context.recipe.seed + 1000 * name.number)
    folder = f"members/{str(name).replace(':', '-').replace('#', '-')}"
    if name.kind == "joint":
        model = train_joint(again, name.loss, base_presentations, name=folder)
        return Member(name=str(name), title=name.title, models=(model,))
    config = _config(context, name.loss)
    specialists = {
        vertical: train_specialist(again, vertical, config=config, within=folder)
        for vertical in context.images.vertical_names
    }
    return Member.of_specialists(context, specialists, str(name))


def _config(context: RunContext, loss: LossName) -> SpecialistsConfig:
    """The recipe's settings if the loss is the recipe's, else the loss's defaults in the recipe's loop."""
    config = context.recipe.specialists
    if loss == config.loss:
        return config
    loop = with_positives(config.loop) if compares_images(loss) else config.loop
    return SpecialistsConfig(loss=loss, loop=loop)
