"""All stages of a run, one after the other: specialists -> groups -> unified model -> evaluation."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from typing import Any

from univert.core.config import config_to_toml, to_plain
from univert.core.files import write_atomic
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.data.triplets import CleanTriplets, read_clean_triplets
from univert.losses.names import LossName
from univert.models.config import BaseNetworkLearns
from univert.training.combine.groups import Combination, combine, groups_without_trials
from univert.training.evaluation import (
    BEST,
    ComparedModel,
    Row,
    RowComparison,
    TestSplit,
    comparisons,
    model_row,
    specialists_row,
)
from univert.training.jobs import TrainedModel
from univert.training.label_training import label_loss
from univert.training.online import train_online
from univert.training.recipe import Recipe
from univert.training.results import card_figures, results_json
from univert.training.run_context import RunContext
from univert.training.specialists import train_joint, train_specialist, train_specialists
from univert.training.targets.choice import Candidate, Choice, choose
from univert.training.targets.config import MemberName
from univert.training.targets.ensemble import Ensemble, choose_members, only_specialists
from univert.training.targets.learning_targets import distortion_of
from univert.training.targets.members import Member
from univert.training.triplet_training import TunedGroup, tune_groups
from univert.training.unify import images_to_learn_from, planned_presentations, train_unified

_log = logging.getLogger(__name__)

FROM_SPECIALISTS = "candidates/specialists"
ENSEMBLE = "candidates/ensemble"
ONLINE = "candidates/online"
JOINT_ROWS: dict[LossName, tuple[str, str]] = {
    "triplet": ("joint_triplet", "One joint triplet model"),
    "proxy-nca": ("joint_proxy_nca", "One joint Proxy-NCA model"),
}
RIVAL = ("joint_long", "One joint model, longer")
"""Key and title of the rival of a unified model that is as wide and had as many images shown, all told."""
WHAT_LEARNS: dict[BaseNetworkLearns, str] = {
    "all": "the whole base network learns, since there is a GPU",
    "last_blocks": 'the base network\'s last blocks learn; base_network_learns = "no" is several times as fast',
    "no": "the base network does not learn: maps_gb does not hold what its first layers make of so many images, or it "
    "cannot be cut into blocks",
}
"""What a recipe that leaves it open came to, for people."""


@dataclass(frozen=True, kw_only=True)
class Models:
    """All that a run trained.

    Attributes:
        specialists: one a vertical.
        own: the specialists that the unified model learns from, in their groups.
        joint: by loss.
        combination: how the groups were found.
        tuned: what clean triplets made of the groups' models; empty without any.
        ensemble: the members of the learning targets, and how they were chosen.
        choice: what the unified model was chosen from, and which it is.
        unified: the model of the run.
    """

    specialists: Member
    own: Member
    joint: dict[LossName, TrainedModel]
    combination: Combination
    tuned: tuple[TunedGroup, ...]
    ensemble: Ensemble
    choice: Choice
    unified: TrainedModel


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """What a run trained and measured.

    Attributes:
        compared: every model that was measured, the last is the chosen one; none without test queries.
        distortion: what joining the members of the learning targets does to distances; see `distortion_of`.
        test: the images they were measured on.
        results: the content of `evaluation.json`.
    """

    context: RunContext
    models: Models
    compared: tuple[ComparedModel, ...]
    comparisons: tuple[RowComparison, ...]
    distortion: dict[str, float]
    test: TestSplit
    results: dict[str, Any]


def run_stages(run: Run, catalogue: Catalogue, recipe: Recipe, *, device: str = "auto") -> FinishedRun:
    """Train all that the recipe asks for, measure it on the test split, and write `evaluation.json`.

    Finished stages whose inputs are unchanged are not done again. `device` is one of torch's, or `auto`.

    Raises:
        BadInputError: the catalogue or the recipe cannot be used.
        TrainingError: a training failed; what was done is kept.
    """
    context = RunContext(run, catalogue, recipe, device=device, split_off_small=True)
    if recipe.base_network_learns == "auto":
        _log.warning(WHAT_LEARNS[context.recipe.learns])
    begun, recipe = recipe.learning(context.recipe.learns), context.recipe
    for note in context.images.notes:
        _log.warning(note)
    label_loss(recipe.specialists, products=32, size=2, seed=0)  # refuses options before any work
    if recipe.combine.groups:
        groups_without_trials(context)  # likewise
    clean = _clean_triplets(context, catalogue)
    test = TestSplit(context)
    # not the settled one: begun again with another `base_network_learns`, the lengths follow it
    write_atomic(run.path / "recipe.toml", config_to_toml(begun))
    models = train_models(context, clean)
    rows, trained = comparison_rows(context, models) if test.measurable else ([], trained_models(models))
    compared = tuple(ComparedModel(row=row, evaluation=test.evaluate(row)) for row in rows)
    compared_pairs = comparisons(test, rows)
    distortion = distortion_of(context, models.ensemble.members, recipe.unify)
    results = results_json(context, models, compared, compared_pairs, trained=trained, distortion=distortion)
    write_atomic(run.path / "evaluation.json", json.dumps(results, indent=1))
    context.stages.describe(models.unified, card_figures(results["trained_on"], *compared[-1:]))
    return FinishedRun(
        context=context,
        models=models,
        compared=compared,
        comparisons=compared_pairs,
        distortion=distortion,
        test=test,
        results=results,
    )


def _clean_triplets(context: RunContext, catalogue: Catalogue) -> CleanTriplets | None:
    """The recipe's clean triplets, checked against the run's images."""
    config, images = context.recipe.triplets, context.images.catalogue
    if config.file is None:
        return None
    clean = read_clean_triplets(
        config.file,
        images,
        on_bad=config.on_bad,
        rejected_csv=context.run.path / "rejected.csv" if config.on_bad == "skip" else None,
        not_chosen=set(catalogue.column("id")) - set(images.column("id")),
    )
    _log.warning(clean.report.summary())
    return clean


def train_models(context: RunContext, clean: CleanTriplets | None = None) -> Models:
    """Train whatever the recipe asks for, and choose the unified model.

    With clean triplets each group's model learns from those of its verticals before it becomes a target.

    Raises:
        BadInputError: the recipe and the catalogue do not fit.
        TrainingError: a training failed; what was done is kept.
    """
    recipe, names = context.recipe, context.images.vertical_names
    specialists = train_specialists(context, names)
    combination = combine(context)
    write_atomic(context.run.path / "groups.json", json.dumps(to_plain(combination), indent=1))
    grouped = {
        name: train_specialist(context, *group) if len(group) > 1 else specialists[name]
        for group in combination.groups
        for name in group
    }
    tuned: list[TunedGroup] = []
    if clean is not None:
        grouped, tuned = tune_groups(context, grouped, clean, recipe.triplets)
    own = Member.of_specialists(context, grouped)
    individual = Member.of_specialists(context, specialists)
    planned = planned_presentations(context, recipe.unify)
    joint = {loss: train_joint(context, loss, planned) for loss in _joint_losses(recipe)}
    candidates: list[Candidate] = []
    if recipe.unify.way == "auto":
        for loss, model in joint.items():
            key, title = JOINT_ROWS[loss]
            candidates.append(Candidate(key=key, title=title, model=model))
    is_wanted = recipe.unify.way == "auto" and "unified_online" in recipe.evaluation.baselines
    if recipe.unify.way == "online" or is_wanted:
        candidates.append(_online(context))
    if recipe.unify.way in ("auto", "specialists"):
        model = train_unified(context, [own], name=FROM_SPECIALISTS, config=recipe.unify)
        title = f"Unified, from {_in_short(own, individual)}, {'aligned' if recipe.unify.align else 'plain'}"
        candidates.append(Candidate(key="unified_specialists", title=title, model=model, members=(own,)))
    ensemble = only_specialists(own)
    if recipe.unify.way in ("auto", "ensemble"):
        ensemble = choose_members(context, own, individual, joint, joint_presentations=planned)
        members = ensemble.members
        if recipe.unify.way == "ensemble" or members != (own,):
            model = train_unified(context, members, name=ENSEMBLE, config=recipe.unify)
            title = f"Unified, from {len(members)} {'members' if len(members) > 1 else 'member'}"
            candidates.append(Candidate(key="unified_ensemble", title=title, model=model, members=members))
    if recipe.unify.way == "auto" and RIVAL[0] in recipe.evaluation.baselines:
        candidates.insert(-1, _rival(context, candidates[-1]))
    choice = choose(context, candidates, individual)
    return Models(
        specialists=individual,
        own=own,
        joint=joint,
        combination=combination,
        tuned=tuple(tuned),
        ensemble=ensemble,
        choice=choice,
        unified=context.stages.copy(choice.chosen.model, BEST),
    )


def _online(context: RunContext) -> Candidate:
    """The unified model that is trained together with specialists on its own base network."""
    model = train_online(context, planned_presentations(context, context.recipe.unify), name=ONLINE)
    return Candidate(key="unified_online", title="Unified, online", model=model)


def _rival(context: RunContext, unified: Candidate) -> Candidate:
    """What one joint model gives with all that a unified model had: its width, and all images shown for it."""
    key, title = RIVAL
    widths = unified.model.embedder.config.hidden_sizes
    shown = unified.image_presentations
    model = train_joint(context, "proxy-nca", shown, name=f"baselines/{key}", hidden_sizes=widths)
    return Candidate(key=key, title=title, model=model)


def _in_short(member: Member, individual: Member) -> str:
    """What a member is made of: specialists as many as verticals, or fewer, each of a group of verticals."""
    if member.key == individual.key:
        return "specialists"
    groups = len(member.distinct)
    return f"{groups} groups" if groups > 1 else "one model of all verticals"


def _joint_losses(recipe: Recipe) -> list[LossName]:
    """The joint models that the recipe compares with or chooses from.

    Each is shown as many images as the L2 training of a unified model; that stands on the presentations of all its
    members, too, and its row says so.
    """
    wanted = [loss for loss, (key, _) in JOINT_ROWS.items() if key in recipe.evaluation.baselines]
    if recipe.unify.way in ("auto", "ensemble"):
        named = [MemberName.parse(name) for name in recipe.unify.members]
        wanted += [name.loss for name in named if name.kind == "joint" and name.loss and not name.number]
    return [loss for loss in JOINT_ROWS if loss in wanted]


def trained_models(models: Models) -> list[TrainedModel]:
    """The specialists, the groups and the joint models; then the candidates."""
    own = [*models.specialists.distinct, *models.own.distinct, *models.joint.values()]
    return [*own, *(candidate.model for candidate in models.choice.candidates)]


def comparison_rows(context: RunContext, models: Models) -> tuple[list[Row], list[TrainedModel]]:
    """The comparison, in the order people read it, and all models in it; trains the variants that are asked for."""
    recipe, own = context.recipe, models.own
    trained = trained_models(models)
    rows = [
        Row(
            key="base",
            title="Untrained base network",
            note="pooled features of the ImageNet network",
            vectors=context.features.base_vectors,
            inputs=context.features.base_fingerprint,
        ),
        specialists_row(context, "specialists", "Specialists, one a vertical", models.specialists),
    ]
    if own.key != models.specialists.key:
        rows.append(specialists_row(context, "groups", "Specialists, one a group", own))
    candidates = {candidate.key: candidate for candidate in models.choice.candidates}
    for loss, model in models.joint.items():
        key, title = JOINT_ROWS[loss]
        rows.append(model_row(context, Candidate(key=key, title=title, model=model), "all verticals at once"))
    if RIVAL[0] in recipe.evaluation.baselines:
        rival = _rival(context, models.choice.candidates[-1])
        trained.append(rival.model)
        rows.append(model_row(context, rival, "as wide and shown as many images as the unified one"))
    if "unified_online" in recipe.evaluation.baselines and recipe.unify.way != "online":
        online = _online(context)
        trained.append(online.model)
        rows.append(model_row(context, online, "specialists and unified model in one training, on one base network"))
    plain, aligned = (replace(recipe.unify, align=align) for align in (False, True))
    labelled = replace(aligned, unlabelled=False)
    learned = f"learns from {_in_short(own, models.specialists)} alone"
    separate = f"learns from {len(models.specialists.models)} specialists alone, one a vertical, in their own spaces"
    variants = [
        ("unified_plain", "Unified, plain", separate, models.specialists, plain),
        ("unified_labelled", "Unified, aligned, labelled only", f"{learned}, without unlabelled images", own, labelled),
        ("unified_aligned", "Unified, aligned", learned, own, aligned),
    ]
    if len(images_to_learn_from(context, labelled)) == len(images_to_learn_from(context, aligned)):
        del variants[1]  # nothing is unlabelled, so it would be the same
    for key, title, note, member, config in variants:
        if key in recipe.evaluation.baselines:
            same = config == recipe.unify and member.key == own.key and "unified_specialists" in candidates
            name = FROM_SPECIALISTS if same else f"baselines/{key}"
            variant = train_unified(context, [member], name=name, config=config)
            trained.append(variant)
            rows.append(model_row(context, Candidate(key=key, title=title, model=variant, members=(member,)), note))
    chosen = models.choice.chosen
    ensemble = candidates.get("unified_ensemble", chosen)
    if ensemble is not chosen:
        rows.append(model_row(context, ensemble, "not chosen"))
    title = chosen.title if chosen.members else f"Chosen: {chosen.title[0].lower()}{chosen.title[1:]}"
    best = replace(chosen, key=BEST, title=title)
    rows.append(model_row(context, best, "the model of this run"))
    return rows, trained
