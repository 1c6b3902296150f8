"""The main job: catalogue -> specialists -> groups -> unified model -> evaluation -> report."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64

import univert
from univert.core.config import config_to_toml
from univert.core.files import fingerprint, write_atomic
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.data.info import catalogue_info
from univert.evaluation.evaluate import Evaluation, evaluate_vectors
from univert.losses.registry import LossName
from univert.models.embedder import Embedder
from univert.training.proxies import WATCHED
from univert.training.recipe import Recipe
from univert.training.specialists import presentations, train_joint, train_specialist
from univert.training.unify import learning_targets, planned_presentations, train_unified
from univert.training.workshop import Trained, Workshop

Positions = Int64[np.ndarray, "N"]
Vectors = Float[np.ndarray, "N D"]
BEST = "unified"
JOINT_ROWS: dict[LossName, tuple[str, str]] = {
    "triplet": ("joint_triplet", "One joint triplet model"),
    "proxy-nca": ("joint_proxy_nca", "One joint Proxy-NCA model"),
}


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
class TrainResult:
    """What a run produced.

    Attributes:
        path: the run folder.
        results: the content of `evaluation.json`.
    """

    path: Path
    results: dict[str, Any]

    @property
    def model_path(self) -> Path:
        """The unified model's folder."""
        return self.path / "unified"

    @property
    def model(self) -> Embedder:
        """The unified model."""
        return Embedder.from_pretrained(self.model_path)

    def recall_at_1(self, key: str) -> float:
        """Merged-gallery Recall@1 of a row, on the test split."""
        row = next(row for row in self.results["rows"] if row["key"] == key)
        return float(row["evaluation"]["merged"]["recall_at"]["1"]["value"])


def train(
    catalogue: Catalogue | Path | str,
    out: Path | str,
    recipe: Recipe | None = None,
    *,
    device: str = "auto",
    report: bool = True,
) -> TrainResult:
    """Train a unified model on a catalogue, hold it against its rivals, and write the report.

    Started again on the same folder it goes on where it was; finished stages whose inputs are unchanged are
    not done again.

    Args:
        catalogue: the images, or where they are.
        out: the run folder.
        recipe: the choices; the defaults are good.
        device: a torch device, or `auto`.
        report: write `report.html` too.

    Raises:
        BadInputError: the catalogue or the recipe cannot be used.
        TrainingError: a training failed; what was done is kept.
    """
    catalogue = catalogue if isinstance(catalogue, Catalogue) else Catalogue.open(catalogue)
    recipe = recipe or Recipe()
    run = Run(Path(out))
    with run.locked():
        workshop = Workshop(run, catalogue, recipe, device=device)
        workshop.refuse_small_verticals()
        write_atomic(run.path / "recipe.toml", config_to_toml(recipe))
        specialists = {name: train_specialist(workshop, name) for name in workshop.vertical_names}
        write_atomic(run.path / "groups.json", json.dumps([[name] for name in specialists], indent=1))
        joint = _train_joint_models(workshop, specialists)
        unified = train_unified(
            workshop, specialists, name="unified", config=recipe.unify, joint=joint.get("proxy-nca")
        )
        rows, models = _rows(workshop, specialists, joint, unified)
        results = _evaluate(workshop, rows, models)
        write_atomic(run.path / "evaluation.json", json.dumps(results, indent=1))
        workshop.describe(unified, _card_figures(results))
        if report:
            _report(workshop, rows, results)
    return TrainResult(path=run.path, results=results)


def _train_joint_models(workshop: Workshop, specialists: dict[str, Trained]) -> dict[LossName, Trained]:
    """The joint models that the recipe compares with or learns from.

    Each is shown as many images as the specialists and a unified model that learns from them alone, together. The
    unified model of an ensemble stands on that many and the joint model's own besides: its row says so.
    """
    recipe = workshop.recipe
    wanted: list[LossName] = [
        loss for loss in JOINT_ROWS if JOINT_ROWS[loss][0] in recipe.evaluation.baselines
    ]
    if recipe.unify.targets == "ensemble" and "proxy-nca" not in wanted:
        wanted.append("proxy-nca")
    budget = presentations(list(specialists.values())) + planned_presentations(workshop, recipe.unify)
    return {loss: train_joint(workshop, loss, budget) for loss in wanted}


def _rows(
    workshop: Workshop, specialists: dict[str, Trained], joint: dict[LossName, Trained], unified: Trained
) -> tuple[list[Row], list[Trained]]:
    """The comparison, in the order people read it; trains what is still missing."""
    recipe = workshop.recipe
    teachers = list(specialists.values())
    models = [*teachers, *joint.values()]
    rows = [
        Row(
            key="base",
            title="Untrained base network",
            note="pooled features of the ImageNet network",
            vectors=workshop.base_vectors,
            inputs=workshop.base.fingerprint,
        ),
        Row(
            key="specialists",
            title="Specialists, one a vertical",
            note="told the true vertical of each query, and searching that vertical alone",
            vectors=lambda positions: learning_targets(workshop, specialists, align=False).clean(positions),
            inputs=fingerprint([model.key for model in teachers]),
            image_presentations=presentations(teachers),
            seconds=_seconds(teachers),
            routed=True,
        ),
    ]
    for loss, model in joint.items():
        key, title = JOINT_ROWS[loss]
        rows.append(_model_row(workshop, key, title, "all verticals at once", model, []))
    from_specialists = replace(recipe.unify, targets="specialists")
    variants = [
        (
            "unified_plain",
            "Unified, plain",
            "the specialists' own spaces",
            replace(from_specialists, align=False),
        ),
        (
            "unified_labelled",
            "Unified, aligned, labelled only",
            "without the unlabelled images",
            replace(from_specialists, unlabelled=False),
        ),
        (
            "unified_aligned",
            "Unified, aligned, with unlabelled",
            "learns from specialists alone",
            from_specialists,
        ),
    ]
    for key, title, note, config in variants:
        if key in recipe.evaluation.baselines and config != recipe.unify:
            variant = train_unified(workshop, specialists, name=f"baselines/{key}", config=config)
            models.append(variant)
            rows.append(_model_row(workshop, key, title, note, variant, teachers))
    behind = [*teachers, joint["proxy-nca"]] if recipe.unify.targets == "ensemble" else teachers
    rows.append(_model_row(workshop, BEST, _unified_title(recipe), "the model of this run", unified, behind))
    return rows, [*models, unified]


def _unified_title(recipe: Recipe) -> str:
    if recipe.unify.targets == "ensemble":
        return "Unified, from specialists and joint"
    plain = "aligned" if recipe.unify.align else "plain"
    return f"Unified, {plain}, {'with unlabelled' if recipe.unify.unlabelled else 'labelled only'}"


def _model_row(
    workshop: Workshop, key: str, title: str, note: str, model: Trained, teachers: list[Trained]
) -> Row:
    behind = [*teachers, model]
    return Row(
        key=key,
        title=title,
        note=note,
        vectors=lambda positions: workshop.source.embed_all(model.embedder, positions),
        inputs=model.key,
        image_presentations=presentations(behind),
        seconds=_seconds(behind),
    )


def _seconds(models: list[Trained]) -> float:
    return float(sum(model.record["seconds"] for model in models))


def _evaluate(workshop: Workshop, rows: list[Row], models: list[Trained]) -> dict[str, Any]:
    """Measure every row on the test split; a row measured before with the same inputs is not measured again."""
    catalogue, seed = workshop.catalogue, workshop.recipe.seed
    test = np.flatnonzero(workshop.splits == "test")
    products = list(catalogue.column("product")[test])
    verticals = list(catalogue.column("vertical")[test])
    measured = []
    for row in rows:
        inputs = fingerprint(
            univert.__version__, catalogue.fingerprint, row.inputs, workshop.recipe.evaluation.resamples, seed
        )
        record = workshop.run.finished(f"evaluation/{row.key}", inputs)
        if record is None:
            evaluation = evaluate_vectors(
                row.vectors(test),
                products,
                verticals,
                routed=row.routed,
                resamples=workshop.recipe.evaluation.resamples,
                seed=seed,
            )
            record = evaluation.to_dict()
            workshop.run.finish(f"evaluation/{row.key}", inputs, record)
        measured.append(
            {
                "key": row.key,
                "title": row.title,
                "note": row.note,
                "evaluation": record,
                "image_presentations": row.image_presentations,
                "seconds": row.seconds,
            }
        )
    return {
        "format": 1,
        "split": "test",
        "catalogue": catalogue_info(catalogue).to_dict(),
        "catalogue_fingerprint": catalogue.fingerprint,
        "rows": measured,
        "best_key": BEST,
        "recipe_toml": config_to_toml(workshop.recipe),
        "curves": {model.name: _curves(model) for model in models},
        "versions": {
            "univert": univert.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "device": str(workshop.device),
        "seed": seed,
        "finished": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


def _card_figures(results: dict[str, Any]) -> dict[str, float | int | str]:
    """What the unified model's card says of it."""
    row = next(row for row in results["rows"] if row["key"] == BEST)
    evaluation = Evaluation.from_dict(row["evaluation"])
    figures: dict[str, float | int | str] = {
        name: results["catalogue"][name] for name in ("images", "products", "unlabelled")
    }
    if evaluation.merged:
        merged = evaluation.merged
        intervals = {f"recall_at_{k}": interval for k, interval in merged.recall_at.items()}
        for name, interval in {**intervals, "map_at_r": merged.map_at_r}.items():
            bounds = "" if interval.low is None else f" ({interval.low:.3f} to {interval.high:.3f})"
            figures[f"merged gallery, {name}, test"] = f"{interval.value:.3f}{bounds}"
    for name, value in evaluation.mean_within.items():
        figures[f"mean within verticals, {name}, test"] = value
    figures["image presentations, with the models learned from"] = row["image_presentations"]
    return figures


def _curves(model: Trained) -> dict[str, Any]:
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


def _report(workshop: Workshop, rows: list[Row], results: dict[str, Any]) -> None:
    from univert.evaluation.report import write_report

    path = workshop.run.path / "report.html"
    inputs = fingerprint(
        univert.__version__, {key: value for key, value in results.items() if key != "finished"}
    )
    if path.exists() and workshop.run.finished("report", inputs) is not None:
        return
    best = next(row for row in rows if row.key == BEST)
    shown = workshop.catalogue.select(split="test")
    vectors = best.vectors(np.flatnonzero(workshop.splits == "test"))
    write_report(path, results, shown, vectors, seed=workshop.recipe.seed)
    workshop.run.finish("report", inputs, {})
