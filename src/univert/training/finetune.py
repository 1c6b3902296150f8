"""Fine-tune a trained model on clean triplets, and keep the result only if it is not worse (Unified FIG. 6)."""

from __future__ import annotations

import contextlib
import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

import univert
from univert.core.config import config_to_toml, from_plain, to_plain
from univert.core.errors import BadInputError
from univert.core.files import fingerprint, write_atomic
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.data.triplets import CleanTriplets, TripletReport, read_clean_triplets
from univert.metrics.compare import Comparison
from univert.models.card import ModelCard
from univert.models.config import BaseNetworkLearns
from univert.models.embedder import Embedder
from univert.training.jobs import TrainedModel
from univert.training.label_config import Count, NotNegative
from univert.training.recipe import DataConfig, Recipe
from univert.training.run_context import RunContext
from univert.training.triplet_config import TripletsConfig
from univert.training.triplet_training import compare_on_split, learning_choices, losses_of, triplet_job


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TripletsConfig):
    """Fine-tuning a model on clean triplets.

    Attributes:
        seed: of everything random.
        base_network_learns: see `Recipe`, as for `last_blocks` and `maps_gb`.
        data: which verticals, and how images reach the network.
    """

    seed: Annotated[int, Ge(0)] = 0
    base_network_learns: BaseNetworkLearns = "no"
    last_blocks: Count = 2
    maps_gb: NotNegative = Recipe.maps_gb
    data: DataConfig = field(default_factory=DataConfig)


@dataclass(frozen=True, kw_only=True)
class FinetuneResult:
    """What fine-tuning came to.

    Attributes:
        model_path: the fine-tuned model's folder, or, where it was worse, a copy of the old one.
        results: the content of `finetune.json`.
        report: what the file of triplets held.
    """

    model_path: Path
    results: dict[str, Any]
    report: TripletReport

    @property
    def kept(self) -> bool:
        """Whether the fine-tuned model was kept."""
        return bool(self.results["kept"])

    @property
    def comparison(self) -> Comparison:
        """Before and after on the validation images; a positive difference speaks for fine-tuning."""
        return from_plain(Comparison, self.results["val"], where="finetune.json")


def finetune(
    model: Path | str,
    catalogue: Catalogue | Path | str,
    triplets: Path | str,
    out: Path | str,
    config: FinetuneConfig | None = None,
    *,
    on_bad: str = "reject",
    device: str = "auto",
) -> FinetuneResult:
    """Fine-tune a specialist or the unified model on verified triplets.

    It starts from the model's own weights. The result is kept if on the validation images neither any vertical nor the
    merged gallery is worse than before (Recall@1 and MAP@R; see `univert.metrics.compare`); otherwise
    `OUT/model` is the old model. Started again on the same folder it goes on where it was.

    Args:
        model: a saved model's folder, or its id on a hub.
        catalogue: the images, or where they are.
        triplets: the file; see `univert.data.triplets.read_clean_triplets`, as for `on_bad`.
        out: a folder for `model/`, `finetune.json`, `rejected.csv`, and the work.
        config: the choices.
        on_bad: `reject` or `skip`.
        device: a torch device, or `auto`.

    Raises:
        BadInputError: the model, the catalogue, the file or the choices cannot be used, or there is nothing to validate
            on.
        TrainingError: the training failed; what was done is kept.
    """
    catalogue = catalogue if isinstance(catalogue, Catalogue) else Catalogue.open(catalogue)
    config = config or FinetuneConfig()
    old = Embedder.from_pretrained(model)
    run = Run(Path(out))
    with run.locked():
        context = _context(run, catalogue, old, config, device)
        images = context.images.catalogue
        clean = read_clean_triplets(
            triplets,
            images,
            on_bad=on_bad,
            rejected_csv=run.path / "rejected.csv" if on_bad == "skip" else None,
            not_chosen=set(catalogue.column("id")) - set(images.column("id")),
        )
        _share_features(Path(model), context)
        results = _finetune(context, old.to(context.device), clean, config, str(model))
        write_atomic(run.path / "finetune.json", json.dumps(results, indent=1))
    return FinetuneResult(model_path=run.path / "model", results=results, report=clean.report)


def _context(run: Run, catalogue: Catalogue, model: Embedder, config: FinetuneConfig, device: str) -> RunContext:
    """A context whose base network is the model's own: its cached features are those of that network."""
    recipe = Recipe(
        seed=config.seed,
        base_network_learns=config.base_network_learns,
        last_blocks=config.last_blocks,
        maps_gb=config.maps_gb,
        data=config.data,
        model=model.config,
    )
    context = RunContext(run, catalogue, recipe, device=device, base=base_of(model))
    if context.images.validation_queries is None:
        raise BadInputError(
            f"{catalogue.path} has no product with two images in the val split (of the chosen verticals), so nothing "
            "can tell whether fine-tuning did any harm; give some products the split val"
        )
    return context


def base_of(model: Embedder) -> Embedder:
    """The model without its head: its embedding is the pooled features of its own base network."""
    base = copy.deepcopy(model)
    base.config = model.config.without_head()
    base.head, base.size = torch.nn.Identity(), model.feature_size
    return base.eval()


def _share_features(model: Path, context: RunContext) -> None:
    """Link the cached features of the run that the model lies in; a folder's name says all that they depend on."""
    for folder in list(model.absolute().parents)[:2]:
        for features in folder.glob(f"cache/features-{context.features.base.fingerprint}-*/view-*.npy"):
            link = context.run.path / "cache" / features.parent.name / features.name
            if not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(OSError):
                    link.hardlink_to(features)


def _finetune(
    context: RunContext, old: Embedder, clean: CleanTriplets, config: FinetuneConfig, name: str
) -> dict[str, Any]:
    """Train, compare and publish; the content of `finetune.json`."""
    choices = to_plain(config)
    inputs = {"model": old.fingerprint, "triplets": clean.fingerprint, **learning_choices(config)}
    tuned = context.stages.train("tuned", inputs, lambda: triplet_job(context, old, clean, config))
    key = fingerprint(univert.__version__, tuned.key, choices)
    results = context.run.finished("finetune", key)
    if results is None or not (context.run.path / "model" / "model.safetensors").exists():
        comparisons = {
            split: compare_on_split(context, old, tuned.embedder, config, split) for split in ("val", "test")
        }
        measured = comparisons["val"]
        assert measured is not None  # refused before training
        lost = losses_of(measured, config)
        results = {
            "kept": not lost,
            "lost": lost,
            **to_plain(comparisons),
            "triplets_in_order": _order(context, old, tuned, clean),
            **{name: tuned.record[name] for name in ("steps", "best_step", "image_presentations", "seconds")},
            "fingerprints": {"old": old.fingerprint, "tuned": tuned.embedder.fingerprint},
        }
        context.run.forget("finetune")  # until the new record is there, none vouches for the model
        _publish(context, old if lost else tuned.embedder, config, measured, kept=not lost)
        context.run.finish("finetune", key, results)
    return {**results, "model": name, "triplets": to_plain(clean.report), "config": choices}


def _order(context: RunContext, old: Embedder, tuned: TrainedModel, clean: CleanTriplets) -> dict[str, float]:
    """The share of the triplets learned from with D(a,p) < D(a,n), before and after."""
    images, rows = np.unique([clean.anchors, clean.positives, clean.negatives], return_inverse=True)
    anchor, positive, negative = rows.reshape(3, -1)
    shares = {}
    for name, model in (("before", old), ("after", tuned.embedder)):
        vectors = context.features.source.embed_all(model, images)
        nearer = vectors[positive] - vectors[negative]  # of unit vectors the nearer has the larger product
        shares[name] = float((np.einsum("td,td->t", vectors[anchor], nearer) > 0).mean())
    return shares


def _publish(context: RunContext, model: Embedder, config: FinetuneConfig, measured: Comparison, *, kept: bool) -> None:
    """Write `model/`, with a card that tells which of the two models it is."""
    figures: dict[str, float | int | str] = {}
    for metric, difference in measured.merged.items():
        figures[f"merged gallery, {metric}, val, before fine-tuning"] = difference.first
        if kept:
            figures[f"merged gallery, {metric}, val"] = difference.second
    card = ModelCard(
        name="univert, fine-tuned on clean triplets" if kept else "univert, as it was before fine-tuning",
        recipe_toml=config_to_toml(config) if kept else "",
        catalogue_fingerprint=context.images.catalogue.fingerprint,
        verticals=context.images.vertical_names,
        figures=figures,
    )
    model.save_pretrained(context.run.path / "model", card, overwrite=True)
