"""Fine-tune a trained model on clean triplets, and keep the result only if it is not worse (Unified FIG. 6)."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Interval
from jaxtyping import Float
from torch import Tensor

import univert
from univert.core.config import config_to_toml, from_plain, to_plain
from univert.core.errors import BadInputError
from univert.core.files import fingerprint, write_atomic
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.data.samplers import Positions, Sampler, UniformSampler
from univert.data.triplets import CleanTriplets, TripletReport, read_clean_triplets
from univert.losses.target_l2_loss import target_l2_loss
from univert.losses.triplet_margin_loss import TripletMarginLoss
from univert.metrics.compare import LARGE_LOSS, Comparison, compare_vectors
from univert.metrics.inputs import has_queries
from univert.models.card import ModelCard
from univert.models.config import BaseNetworkLearns
from univert.models.embedder import Embedder
from univert.training.jobs import TrainedModel, TrainingJob
from univert.training.label_config import Count, LoopConfig, NotNegative, Positive
from univert.training.objectives import Objective
from univert.training.recipe import DataConfig, Recipe
from univert.training.run_context import RunContext


@dataclass(frozen=True, kw_only=True)
class TripletLoopConfig(LoopConfig):
    """`LoopConfig` with the defaults of a fine-tuning: short, with small learning rates."""

    epochs: Count = 10
    min_steps: Count = 100
    batch_size: Annotated[int, Ge(4)] = 128
    learning_rate: Positive = 3e-4
    base_network_learning_rate: Positive = 1e-5


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Fine-tuning on clean triplets.

    Attributes:
        seed: of everything random.
        base_network_learns: see `Recipe`, as for `last_blocks` and `maps_gb`.
        data: which verticals, and how images reach the network.
        margin: the wanted gap between D(a,n) and D(a,p), squared (Unified eq. 1).
        keep: weight of the L2 term that holds the model to its own old embeddings; 0 switches it off.
        others: share of each batch that is training images at random, on which the L2 term works; batch normalisation
            sees them, too.
        tolerance: on the validation images, a loss of up to this much (0.01: one point of Recall@1) is none.
        limit: a loss beyond this counts even where so few products show it that chance is not ruled out.
        loop: the training; `epochs` counts passes over the triplets.
    """

    seed: Annotated[int, Ge(0)] = 0
    base_network_learns: BaseNetworkLearns = "no"
    last_blocks: Count = 2
    maps_gb: NotNegative = Recipe.maps_gb
    data: DataConfig = field(default_factory=DataConfig)
    margin: Positive = 0.2
    keep: NotNegative = 2.0
    others: Annotated[float, Interval(ge=0, le=0.9)] = 0.5
    tolerance: Annotated[float, Interval(ge=0, lt=1)] = 0.01
    limit: Annotated[float, Interval(ge=0, le=1)] = LARGE_LOSS
    loop: TripletLoopConfig = field(default_factory=TripletLoopConfig)

    def __post_init__(self) -> None:
        if self.keep and not self.others:
            raise BadInputError(
                f"keep has no effect without other images, got keep {self.keep} and others 0; set others, or keep = 0"
            )


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
    old.eval()

    @torch.no_grad()  # the old model learns nothing
    def embed(positions: Positions, views: Positions) -> Float[Tensor, "B D"]:
        return context.features.source.embed(old, positions, views).float()

    sampler = TripletSampler(
        clean,
        np.flatnonzero(context.images.is_train),
        batch_size=config.loop.batch_size,
        share=config.others,
        seed=config.seed,
    )
    objective = CleanTripletObjective(sampler.triplets_per_batch, margin=config.margin, keep=config.keep, old=embed)
    return TrainingJob(
        embedder=copy.deepcopy(old), objective=objective, sampler=sampler, loop=config.loop, starts_trained=True
    )


def _compare(
    context: RunContext, old: Embedder, tuned: TrainedModel, config: FinetuneConfig, split: str
) -> Comparison | None:
    """Before and after on the images of a split; None where it has no queries."""
    positions = np.flatnonzero(context.images.splits == split)
    products = context.images.products[positions]
    if not has_queries(products):
        return None
    before, after = (context.features.source.embed_all(model, positions) for model in (old, tuned.embedder))
    return compare_vectors(
        before,
        after,
        products,
        context.images.names_of(positions),
        unseen_brands=context.images.of_unseen_brands[positions],
        tolerance=config.tolerance,
        seed=config.seed,
    )


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


class TripletSampler(Sampler):
    """All anchors of a batch first, then all positives, all negatives, then a share of other images.

    Raises:
        BadInputError: no triplets, or a batch too small for one.
    """

    def __init__(
        self, triplets: CleanTriplets, others: Positions, *, batch_size: int = 128, share: float = 0.5, seed: int = 0
    ) -> None:
        count = int(batch_size * share) if len(others) else 0
        if batch_size - count < 3:
            raise BadInputError(
                f"batch_size must leave room for a triplet, got {batch_size} with a share of {share} other images"
            )
        self._table = np.stack([triplets.anchors, triplets.positives, triplets.negatives])
        rows = np.arange(len(triplets))
        self._rows = UniformSampler(rows, batch_size=(batch_size - count) // 3, seed=seed)
        self._others = UniformSampler(others, batch_size=count, seed=seed) if count else None
        self.triplets_per_batch = self._rows.batch_size
        self.batch_size = 3 * self.triplets_per_batch + (self._others.batch_size if self._others else 0)
        self.steps_per_epoch = self._rows.steps_per_epoch

    def batch(self, step: int) -> Positions:
        """Positions of step `step`."""
        chosen = self._table[:, self._rows.batch(step)].ravel()
        return np.concatenate([chosen, self._others.batch(step)]) if self._others else chosen


class CleanTripletObjective(Objective):
    """The triplet loss of exactly the given triplets, plus L2 to the old embeddings of the other images.

    For `margin` and `keep` see `FinetuneConfig`; `old` embeds positions in views by the model as it was.
    """

    def __init__(
        self, triplets_per_batch: int, *, margin: float, keep: float, old: Callable[[Positions, Positions], Tensor]
    ) -> None:
        super().__init__()
        self._loss = TripletMarginLoss(margin)
        self._count, self._keep, self._old = triplets_per_batch, keep, old

    def forward(self, embeddings: Float[Tensor, "B D"], positions: Positions, views: Positions) -> Float[Tensor, ""]:
        """The loss of a batch of `TripletSampler`."""
        T = self._count
        rows = torch.arange(T, device=embeddings.device)
        nothing = rows.new_zeros(3 * T)  # labels, which listed triplets do not need
        value: Tensor = self._loss(embeddings[: 3 * T], nothing, (rows, rows + T, rows + 2 * T))
        if self._keep and len(positions) > 3 * T:
            old = self._old(positions[3 * T :], views[3 * T :])
            value = value + self._keep * target_l2_loss(embeddings[3 * T :], old)
        return value
