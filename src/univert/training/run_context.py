"""The run context: what all stages of a run share (recipe, catalogue, features, validation, bookkeeping)."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int64

import univert
from univert.core.config import config_to_mapping, config_to_toml
from univert.core.device import choose_device
from univert.core.files import fingerprint, write_atomic
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.data.loading import ImageLoader
from univert.metrics.inputs import has_queries
from univert.metrics.ranking import map_at_r
from univert.models.base_networks.base import Cut
from univert.models.card import ModelCard
from univert.models.embedder import Embedder
from univert.training.jobs import TrainedModel, TrainingJob, scalar_log
from univert.training.loop import Task, fit
from univert.training.recipe import Recipe
from univert.training.run_images import RunImages
from univert.training.sources import CachedSource, FrontSource, ImageSource, Source, feature_rows, front_rows
from univert.training.targets.vertical_prediction import VerticalPredictor
from univert.training.view_arrays import Compute, ViewArrays, by_parts

ROWS_AT_ONCE = 1024
T = TypeVar("T")


class RunContext(RunImages):
    """One run at work.

    Args:
        run: where everything is kept.
        catalogue: the images.
        recipe: the choices.
        device: a torch device, or `auto`: CUDA where there is one.
        base: an embedder without head that stands for the untrained base network; None makes one.

    Attributes:
        catalogue: the images of the recipe's verticals.
        recipe: as given.
        vertical_names: sorted.
        run: as given.
        device: the one chosen.

    Raises:
        BadInputError: unknown verticals.
    """

    def __init__(
        self, run: Run, catalogue: Catalogue, recipe: Recipe, *, device: str = "auto", base: Embedder | None = None
    ) -> None:
        super().__init__(catalogue, recipe)
        self.run, self.device = run, choose_device(device)
        if base is not None:
            self.base = base.to(self.device)

    def vertical_probabilities(self, positions: Int64[np.ndarray, "B"]) -> Float[np.ndarray, "B K"]:
        """The probability of each vertical for some images, as the untrained base network sees them."""
        return self.router(self.base_vectors(positions))

    @cached_property
    def router(self) -> VerticalPredictor:
        """Predicts verticals; fitted on the training images whose vertical is known."""
        usable = np.flatnonzero(self.is_train & (self.verticals >= 0))
        fitted_on = VerticalPredictor.choose(usable, self.verticals[usable], seed=self.recipe.seed)
        count = len(self.vertical_names)
        return VerticalPredictor(self.base_vectors(fitted_on), self.verticals[fitted_on], count=count)

    @property
    def target_size(self) -> int:
        """Width of the learning targets and of the unified model."""
        return self.base.feature_size if self.recipe.model.size is None else self.recipe.model.size

    @cached_property
    def loader(self) -> ImageLoader:
        """Decodes and augments."""
        data = self.recipe.data
        return ImageLoader(self.catalogue, self.base.preprocessing, data.augmentation, seed=self.recipe.seed)

    @cached_property
    def source(self) -> Source:
        """Embeddings for training: from cached features where the trunk is frozen, else from images."""
        if self._kept_cut is not None:
            return self._front_source(self._kept_cut)
        if self.recipe.trunk != "frozen":
            return ImageSource(self.loader, views=self.recipe.data.views)
        name = f"features-{self.base_fingerprint}"
        compute = feature_rows(self.base, self.loader)
        return CachedSource(self.view_arrays(name, "features", self.base.feature_size, compute))

    @property
    def keeps_maps(self) -> bool:
        """Whether a partly learning base network is fed with what its frozen layers gave, at half precision."""
        return self._kept_cut is not None

    @cached_property
    def _kept_cut(self) -> Cut | None:
        """Where a partly learning base network is cut to keep what comes before; None where that is not kept."""
        recipe = self.recipe
        if recipe.trunk != "partial" or not recipe.maps_gb:
            return None
        cut = self.base.trunk.cut(recipe.partial_blocks, self.base.config.image_size_px)
        if cut is None:
            return None
        rows = len(self.catalogue) + recipe.data.views * int(self.is_train.sum())
        return cut if 2 * math.prod(cut.map_shape) * rows <= recipe.maps_gb * 1e9 else None

    def _front_source(self, cut: Cut) -> FrontSource:
        stages = self.recipe.partial_blocks
        maps = self.view_arrays(
            f"maps-{self.base_fingerprint}-{stages}",
            "maps of the frozen layers",
            math.prod(cut.map_shape),
            front_rows(self.base, self.loader, cut),
            dtype=np.float16,
        )
        return FrontSource(maps, cut, stages)

    def view_arrays(
        self,
        name: str,
        description: str,
        width: int,
        compute: Compute,
        *,
        views: int | None = None,
        dtype: npt.DTypeLike = np.float32,
    ) -> ViewArrays:
        """An array with a row for every image and training view, kept with the run; see `ViewArrays`.

        Args:
            name: of its folder; it must change with anything that the rows depend on, except the images themselves.
            description: for the progress bar.
            width: of a row.
            compute: gives the rows.
            views: augmented views; None takes the recipe's.
            dtype: see `ViewArrays`.
        """
        return ViewArrays(
            self.run.path / "cache" / f"{name}-{self._images_key}",
            description,
            count=len(self.catalogue),
            augmented=np.flatnonzero(self.is_train),
            views=self.recipe.data.views if views is None else views,
            width=width,
            compute=compute,
            dtype=dtype,
        )

    def remembered(self, stage: str, inputs: Any, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What a stage without a model recorded, or what it gives now.

        Args:
            stage: its name.
            inputs: JSON-able; with the catalogue all that the result depends on.
            compute: gives the JSON-able result; not called when the stage is finished.
        """
        key = fingerprint(univert.__version__, self.catalogue.fingerprint, inputs)
        record = self.run.finished(stage, key)
        if record is None:
            record = compute()
            self.run.finish(stage, key, record)
        return record

    def once(self, key: str, compute: Callable[[], T]) -> T:
        """What a function gives, computed once for this run context and held in memory.

        Args:
            key: names all that the result depends on.
            compute: gives the result.
        """
        if key not in self._held:
            self._held[key] = compute()
        held: T = self._held[key]
        return held

    @cached_property
    def _held(self) -> dict[str, Any]:
        return {}

    @cached_property
    def _images_key(self) -> str:
        """Fingerprint of all that the pixels of an image and view depend on."""
        data, model = self.recipe.data, self.recipe.model
        return fingerprint(
            self.catalogue.fingerprint,
            config_to_mapping(data.augmentation),
            config_to_mapping(model.preprocessing()),
            self.recipe.seed,
        )

    @cached_property
    def base(self) -> Embedder:
        """The untrained base network: no head, its embedding is the pooled features."""
        return self.new_embedder(size=None, batch_norm=False, dropout=0.0)

    def base_vectors(self, positions: Int64[np.ndarray, "B"]) -> Float[np.ndarray, "B F"]:
        """Embeddings by the untrained base network: its pooled features, of unit length."""
        if self.recipe.trunk == "frozen":
            return self.source.embed_all(self.base, positions)
        return self._base_rows.clean(positions)

    @cached_property
    def _base_rows(self) -> ViewArrays:
        """Where no features are kept, so that several stages can ask for them."""
        compute = by_parts(lambda positions, _: self.source.embed_all(self.base, positions), ROWS_AT_ONCE)
        name = f"base-{self.base_fingerprint}{'-maps' if self.keeps_maps else ''}"
        return self.view_arrays(name, "base network", self.base.feature_size, compute, views=0)

    @cached_property
    def base_fingerprint(self) -> str:
        """Of the untrained base network."""
        return self.base.fingerprint

    def new_embedder(self, **changes: Any) -> Embedder:
        """An embedder as every stage starts from: the same base network, a head with the same random start.

        Args:
            changes: fields of the recipe's model to change.
        """
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.seed)
            embedder = Embedder(replace(self.recipe.model, **changes)).to(self.device)
        base: Embedder | None = self.__dict__.get("base")
        if base is not None:  # its features are kept, and without pretrained weights another seed gives another
            embedder.trunk.load_state_dict(base.trunk.state_dict())
            embedder.pooling.load_state_dict(base.pooling.state_dict())
        return embedder

    def reseeded(self, seed: int) -> RunContext:
        """The same run, its images and features shared, with another seed for heads, batches and proxies."""
        other = RunContext.__new__(RunContext)
        shared = {"source": self.source, "base": self.base, "loader": self.loader, "_images_key": self._images_key}
        other.__dict__.update(self.__dict__, **shared)
        for depends_on_the_seed in ("router", "_held"):
            other.__dict__.pop(depends_on_the_seed, None)
        other.recipe = replace(self.recipe, seed=seed)
        return other

    def scorer(self, embedder: Embedder, among: Bool[np.ndarray, "N"] | None = None) -> Callable[[], float] | None:
        """MAP@R over the labelled validation images (of a subset); None where none of them is a query.

        Args:
            embedder: scored as it stands at each call.
            among: the images that count.
        """
        chosen = (self.splits == "val") & (self.products >= 0)
        positions = np.flatnonzero(chosen if among is None else chosen & among)
        labels = self.products[positions]
        if not has_queries(labels):
            return None
        return lambda: map_at_r(self.source.embed_all(embedder, positions), labels)

    def train_stage(self, name: str, inputs: Any, prepare: Callable[[], TrainingJob]) -> TrainedModel:
        """Train one model in its folder of the run, unless that is done; resume it where it was cut off.

        Args:
            name: the folder within the run, such as `specialists/dresses`.
            inputs: JSON-able; together with the recipe's model, data, trunk and seed all that the result depends on.
            prepare: gives the job; not called when the stage is finished.

        Raises:
            TrainingError: see `fit`.
        """
        recipe = config_to_mapping(self.recipe)
        shared = {key: recipe[key] for key in ("seed", "trunk", "partial_blocks", "data", "model")}
        if self.keeps_maps:
            shared["maps"] = "float16"
        key = fingerprint(univert.__version__, self.catalogue.fingerprint, self.base_fingerprint, shared, inputs)
        folder = self.run.path / name
        record = self.run.finished(name, key)
        if record is None or not (folder / "model.safetensors").exists():
            work = self.work_folder(name)
            self._discard_other_work(work, key)
            job = prepare()
            record = self.learn(name, job, work)
            self.run.forget(name)
            job.embedder.save_pretrained(folder, self._card(name, record, job.among), overwrite=True)
            self.run.finish(name, key, record)
            shutil.rmtree(work)
        return TrainedModel(name=name, key=key, record=record, folder=folder, device=self.device)

    def describe(self, model: TrainedModel, figures: dict[str, float | int | str]) -> None:
        """Write a model's card anew, with figures that were measured after its training."""
        card = replace(self._card(model.name, model.record), figures=figures)
        write_atomic(model.folder / "README.md", card.to_markdown(config_to_mapping(model.embedder.config)))

    def work_folder(self, name: str) -> Path:
        """Where an unfinished stage keeps its checkpoint, and whatever else must not outlive it."""
        return self.run.path / "checkpoints" / name

    def learn(self, name: str, job: TrainingJob, folder: Path) -> dict[str, Any]:
        """Train the job's model in place, with its checkpoint in `folder`, and say how it went.

        `train_stage` does this and keeps the model; call it where the model is not to be kept.

        Raises:
            TrainingError: see `fit`.
        """
        task = Task(
            name=name,
            embedder=job.embedder,
            trunk=self.recipe.trunk,
            partial_blocks=self.recipe.partial_blocks,
            objective=job.objective.to(self.device),
            sampler=job.sampler,
            source=self.source,
            score=job.score or self.scorer(job.embedder, job.among),
            monitor=job.monitor,
            starts_trained=job.starts_trained,
        )
        open_log = partial(scalar_log, self.run.path / "log" / name)
        done = fit(task, job.loop, seed=self.recipe.seed, folder=folder, open_log=open_log)
        return {"steps": done.steps, "image_presentations": done.image_presentations, **asdict(done.history)}

    def _discard_other_work(self, folder: Path, key: str) -> None:
        """A checkpoint made from other inputs must not be resumed."""
        marker = folder / "inputs.txt"
        if folder.exists() and not (marker.exists() and marker.read_text() == key):
            shutil.rmtree(folder)
        write_atomic(marker, key)

    def _card(self, name: str, record: dict[str, Any], among: Bool[np.ndarray, "N"] | None = None) -> ModelCard:
        names = self.vertical_names
        if among is not None:
            names = [vertical for vertical in names if (among & self.of_vertical(vertical)).any()]
        return ModelCard(
            name=f"univert {name}",
            recipe_toml=config_to_toml(self.recipe),
            catalogue_fingerprint=self.catalogue.fingerprint,
            verticals=names,
            figures={
                "validation MAP@R": "no queries" if record["best_score"] is None else record["best_score"],
                "image presentations": record["image_presentations"],
            },
        )
