"""All stages of a run: specialists -> groups -> unified model -> evaluation."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass, replace
from typing import Any

import torch

import univert
from univert.core.config import config_to_toml
from univert.core.files import write_atomic
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.data.info import catalogue_info
from univert.training.evaluation import ComparedModel, RowComparison, TestSplit, comparison_rows, comparisons
from univert.training.jobs import TrainedModel
from univert.training.proxies import WATCHED
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.stages import BEST, Models, train_models
from univert.training.targets.learning_targets import distortion_of


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """What a run trained and measured.

    Attributes:
        context: what its stages shared.
        models: all that it trained.
        test: the images that models were measured on.
        compared: every model that was measured; the last is the chosen one.
        comparisons: the chosen one against others, query by query.
        distortion: what reducing the joined learning targets to one size costs.
        results: the content of `evaluation.json`.
    """

    context: RunContext
    models: Models
    test: TestSplit
    compared: tuple[ComparedModel, ...]
    comparisons: tuple[RowComparison, ...]
    distortion: dict[str, Any]
    results: dict[str, Any]


def run_stages(run: Run, catalogue: Catalogue, recipe: Recipe, *, device: str = "auto") -> FinishedRun:
    """Train all that the recipe asks for, measure it on the test split, and write `evaluation.json`.

    Args:
        run: the run folder; finished stages whose inputs are unchanged are not done again.
        catalogue: the images.
        recipe: the choices.
        device: a torch device, or `auto`.

    Raises:
        BadInputError: the catalogue or the recipe cannot be used.
        TrainingError: a training failed; what was done is kept.
    """
    context = RunContext(run, catalogue, recipe, device=device)
    context.refuse_small_verticals()
    test = TestSplit(context)
    write_atomic(run.path / "recipe.toml", config_to_toml(recipe))
    models = train_models(context)
    rows, trained = comparison_rows(context, models)
    compared = tuple(ComparedModel(row=row, evaluation=test.evaluate(row)) for row in rows)
    unify = recipe.unify
    finished = FinishedRun(
        context=context,
        models=models,
        test=test,
        compared=compared,
        comparisons=tuple(comparisons(test, rows)),
        distortion=distortion_of(context, models.ensemble.members, unify.targets, unlabelled=unify.unlabelled),
        results={},
    )
    finished = replace(finished, results=_results(finished, trained))
    write_atomic(run.path / "evaluation.json", json.dumps(finished.results, indent=1))
    context.describe(models.unified, _card_figures(compared[-1], finished.results["catalogue"]))
    return finished


def _results(finished: FinishedRun, trained: list[TrainedModel]) -> dict[str, Any]:
    """The content of `evaluation.json`."""
    context, models = finished.context, finished.models
    return {
        "format": 1,
        "split": "test",
        "catalogue": catalogue_info(context.catalogue).to_dict(),
        "catalogue_fingerprint": context.catalogue.fingerprint,
        "rows": [
            {
                "key": one.row.key,
                "title": one.row.title,
                "note": one.row.note,
                "evaluation": one.evaluation.to_dict(),
                "image_presentations": one.row.image_presentations,
                "seconds": one.row.seconds,
            }
            for one in finished.compared
        ],
        "best_key": BEST,
        "combination": models.combination.to_dict(),
        "choice": models.choice.to_dict(),
        "ensemble": {
            **models.ensemble.to_dict(),
            "distortion": finished.distortion,
            "learned_from": models.choice.chosen.members == models.ensemble.members,
        },
        "comparisons": [one.to_dict() for one in finished.comparisons],
        "recipe_toml": config_to_toml(context.recipe),
        "curves": {model.name: _curves(model) for model in trained},
        "versions": {"univert": univert.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "device": str(context.device),
        "seed": context.recipe.seed,
        "finished": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


def _card_figures(best: ComparedModel, catalogue: dict[str, Any]) -> dict[str, float | int | str]:
    """What the unified model's card says of it."""
    figures: dict[str, float | int | str] = {name: catalogue[name] for name in ("images", "products", "unlabelled")}
    merged = best.evaluation.merged
    intervals = {f"recall_at_{k}": interval for k, interval in merged.recall_at.items()}
    for name, interval in {**intervals, "map_at_r": merged.map_at_r}.items():
        bounds = "" if interval.low is None else f" ({interval.low:.3f} to {interval.high:.3f})"
        figures[f"merged gallery, {name}, test"] = f"{interval.value:.3f}{bounds}"
    for name, value in best.evaluation.mean_within.items():
        figures[f"mean within verticals, {name}, test"] = value
    figures["image presentations, with the models learned from"] = best.row.image_presentations
    return figures


def _curves(model: TrainedModel) -> dict[str, Any]:
    record = model.record
    watched = {name: record["monitor_curves"][name] for name in WATCHED if name in record["monitor_curves"]}
    if "nca_tightness" in watched:  # the loss that is trained; the triplet bound is watched beside it
        watched.pop("triplet_tightness", None)
    return {
        "step": [step for step, _ in record["loss_curve"]],
        "loss": [loss for _, loss in record["loss_curve"]],
        "val_map_at_r": record["score_curve"],
        "best_step": record["best_step"],
        "watched": {WATCHED[name]: curve for name, curve in watched.items()},
    }
