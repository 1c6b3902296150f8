"""Fine-tune a trained model on clean triplets, and keep the result only if it is not worse (Unified FIG. 6)."""

from __future__ import annotations

import contextlib
import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import univert
from univert.core.config import config_to_toml, from_plain, to_plain
from univert.core.errors import BadInputError
from univert.core.files import fingerprint, write_atomic
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.data.samplers import Positions
from univert.data.triplets import CleanTriplets, TripletReport, read_clean_triplets
from univert.metrics.compare import Comparison, compare_vectors
from univert.metrics.inputs import has_queries
from univert.models.card import ModelCard
from univert.models.embedder import Embedder
from univert.training.jobs import TrainedModel, TrainingJob
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.triplet_learning import CleanTripletObjective, EmbedViews, FinetuneConfig, TripletSampler

REJECTED_CSV = "rejected.csv"


@dataclass(frozen=True, kw_only=True)
class FinetuneResult:
    """What fine-tuning came to.

    Attributes:
        path: the folder of the work; the model is in `model/`.
        results: the content of `finetune.json`.
        report: what the file of triplets held.
    """

    path: Path
    results: dict[str, Any]
    report: TripletReport

    @property
    def model_path(self) -> Path:
        """The fine-tuned model's folder, or, where it was worse, that of the old one."""
        return self.path / "model"

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
        triplets: the file; see `univert.data.triplets.read_clean_triplets`.
        out: a folder for `model/`, `finetune.json`, and the work.
        config: the choices; the defaults are good.
        on_bad: `reject` refuses a file with triplets that cannot be used, `skip` leaves those out and lists them in
            `OUT/rejected.csv`.
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
        rejected_csv = run.path / REJECTED_CSV if on_bad == "skip" else None
        chosen = set(context.images.catalogue.column("id"))
        clean = read_clean_triplets(
            triplets,
            context.images.catalogue,
            on_bad=on_bad,
            rejected_csv=rejected_csv,
            not_chosen=set(catalogue.column("id")) - chosen,
        )
        _share_features(Path(model), context)
        results = _finetune(context, old.to(context.device), clean, config, str(model))
        write_atomic(run.path / "finetune.json", json.dumps(results, indent=1))
    return FinetuneResult(path=run.path, results=results, report=clean.report)


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
            f"{catalogue.path} has no product with two images in its val split"
            f"{' in the chosen verticals' if config.data.verticals else ''}, so nothing can tell whether "
            "fine-tuning did any harm; give some products the split val"
        )
    return context


def base_of(model: Embedder) -> Embedder:
    """The model without its head: its embedding is the pooled features of its own base network."""
    config = replace(model.config, size=None, batch_norm=False)
    base = copy.deepcopy(model)
    base.config, base.head, base.size = config, torch.nn.Identity(), model.feature_size
    return base.eval()


def _share_features(model: Path, context: RunContext) -> None:
    """Take the cached features of the run that the model lies in, if they are of its base network.

    A folder's name says all that its features depend on, so what does not fit is never read. Links cost nothing, and
    outlive the run; where the disk has none, the features are computed anew.
    """
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
    learned = {name: value for name, value in choices.items() if name not in ("tolerance", "limit")}
    inputs = {"model": old.fingerprint, "triplets": clean.fingerprint, **learned}
    tuned = context.stages.train("tuned", inputs, lambda: _job(context, old, clean, config))
    key = fingerprint(univert.__version__, tuned.key, choices)
    results = context.run.finished("finetune", key)
    if results is None or not (context.run.path / "model" / "model.safetensors").exists():
        comparisons = {split: _compare(context, old, tuned, config, split) for split in ("val", "test")}
        measured = comparisons["val"]
        assert measured is not None  # refused before training
        lost = [f"{gallery}, {one.metric}" for gallery, one in measured.losses(config.limit)]
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


def _job(context: RunContext, old: Embedder, clean: CleanTriplets, config: FinetuneConfig) -> TrainingJob:
    sampler = TripletSampler(
        clean,
        np.flatnonzero(context.images.is_train),
        batch_size=config.loop.batch_size,
        share=config.others,
        seed=config.seed,
    )
    objective = CleanTripletObjective(
        sampler.triplets_per_batch, margin=config.margin, keep=config.keep, old=_embed_views(context, old)
    )
    return TrainingJob(
        embedder=copy.deepcopy(old), objective=objective, sampler=sampler, loop=config.loop, starts_trained=True
    )


def _embed_views(context: RunContext, old: Embedder) -> EmbedViews:
    """The old model as a function; it learns nothing, so its embeddings are plain numbers."""
    old.eval()

    def embed(positions: Positions, views: Positions) -> Float[Tensor, "B D"]:
        with torch.no_grad():
            return context.features.source.embed(old, positions, views).float()

    return embed


def _compare(
    context: RunContext, old: Embedder, tuned: TrainedModel, config: FinetuneConfig, split: str
) -> Comparison | None:
    """Before and after on the images of a split; None where it has no queries."""
    positions = np.flatnonzero(context.images.splits == split)
    products = context.images.products[positions]
    if not has_queries(products):
        return None
    before, after = (context.features.source.embed_all(model, positions) for model in (old, tuned.embedder))
    verticals = context.images.names_of(positions)
    return compare_vectors(before, after, products, verticals, tolerance=config.tolerance, seed=config.seed)


def _order(context: RunContext, old: Embedder, tuned: TrainedModel, clean: CleanTriplets) -> dict[str, float]:
    """The share of the triplets with D(a,p) < D(a,n), before and after; the images are those learned from."""
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
        figures[f"merged gallery, {metric}, val"] = difference.second if kept else difference.first
        if kept:
            figures[f"merged gallery, {metric}, val, before fine-tuning"] = difference.first
    card = ModelCard(
        name="univert, fine-tuned on clean triplets" if kept else "univert, as it was before fine-tuning",
        recipe_toml=config_to_toml(config) if kept else "",
        catalogue_fingerprint=context.images.catalogue.fingerprint,
        verticals=context.images.vertical_names,
        figures=figures,
    )
    model.save_pretrained(context.run.path / "model", card, overwrite=True)
