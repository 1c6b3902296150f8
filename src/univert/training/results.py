"""What a run's files tell of it: `evaluation.json` and the unified model's card."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import univert
from univert.core.config import config_to_toml, to_plain
from univert.data.info import catalogue_info
from univert.training.evaluation import BEST, ComparedModel, RowComparison
from univert.training.jobs import TrainedModel
from univert.training.label_training import WATCHED
from univert.training.run_context import RunContext
from univert.training.unify import images_to_learn_from

if TYPE_CHECKING:
    from univert.training.stages import Models
    from univert.training.targets.choice import Candidate


def results_json(
    context: RunContext,
    models: Models,
    compared: Sequence[ComparedModel],
    comparisons: Sequence[RowComparison],
    *,
    trained: Sequence[TrainedModel],
    distortion: Mapping[str, float],
) -> dict[str, Any]:
    """The content of `evaluation.json`, with the curves of the models `trained`."""
    catalogue, chosen = context.images.catalogue, models.choice.chosen
    return {
        "format": 1,
        "split": "test",
        "notes": [*context.images.notes, *(group.note for group in models.tuned)],
        "catalogue": to_plain(catalogue_info(catalogue)),
        "catalogue_fingerprint": catalogue.fingerprint,
        "trained_on": trained_on(context, models.choice.chosen),
        "rows": [
            {
                "key": each.row.key,
                "title": each.row.title,
                "note": each.row.note,
                "evaluation": to_plain(each.evaluation),
                "image_presentations": each.row.image_presentations,
                "seconds": each.row.seconds,
            }
            for each in compared
        ],
        "best_key": BEST,
        "combination": to_plain(models.combination),
        "clean_triplets": [to_plain(group) for group in models.tuned],
        "choice": models.choice.to_dict(),
        "ensemble": {
            "members": to_plain(models.ensemble.tried),
            "distortion": dict(distortion),
            "learned_from": chosen.members == models.ensemble.members,
        },
        "comparisons": to_plain(list(comparisons)),
        "recipe_toml": config_to_toml(context.recipe),
        "curves": {model.name: training_curves(model) for model in trained},
        "versions": {"univert": univert.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "device": str(context.device),
        "seed": context.recipe.seed,
        "finished": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


def trained_on(context: RunContext, chosen: Candidate) -> dict[str, int]:
    """Training images that a candidate learned from, their products, and how many of the images have none."""
    unify = context.recipe.unify
    images = images_to_learn_from(context, unify if chosen.members else replace(unify, unlabelled=False))
    products = context.images.products[images]
    labelled = products[products >= 0]
    return {"images": len(images), "products": len(np.unique(labelled)), "unlabelled": len(images) - len(labelled)}


def card_figures(learned: Mapping[str, int], best: ComparedModel | None = None) -> dict[str, float | int | str]:
    """What the unified model's card says of it: what it learned from and, with test queries, how good it is."""
    figures: dict[str, float | int | str] = {f"training {name}": number for name, number in learned.items()}
    if best is None:
        return figures
    merged = best.evaluation.merged
    intervals = {f"recall_at_{k}": interval for k, interval in merged.recall_at.items()}
    for name, interval in {**intervals, "map_at_r": merged.map_at_r}.items():
        bounds = "" if interval.low is None else f" ({interval.low:.3f} to {interval.high:.3f})"
        figures[f"merged gallery, {name}, test"] = f"{interval.value:.3f}{bounds}"
    for name, value in best.evaluation.mean_within.items():
        figures[f"mean within verticals, {name}, test"] = value
    figures["image presentations, with the models learned from"] = best.row.image_presentations
    return figures


def training_curves(model: TrainedModel) -> dict[str, Any]:
    """Loss, validation score and bounds of a training."""
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
