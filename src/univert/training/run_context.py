"""The run context: a run at work, in its three parts: images, features, stages."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool

import univert
from univert.core.config import config_to_toml, to_plain
from univert.core.files import fingerprint, publishing, write_atomic
from univert.core.run import Run
from univert.core.tensors import choose_device
from univert.data.catalogue import Catalogue
from univert.metrics.inputs import has_queries
from univert.models.card import ModelCard
from univert.models.embedder import Embedder
from univert.models.head import Head
from univert.training.features import Features
from univert.training.jobs import TrainedModel, TrainingJob
from univert.training.loop import Log, fit
from univert.training.recipe import Recipe
from univert.training.run_images import RunImages
from univert.training.sources import Source

T = TypeVar("T")


class RunContext:
    """One run at work.

    `features` are those of another context on the same images, to be shared. For `base` see `Features`, for
    `split_off_small` see `RunImages`.

    Attributes:
        recipe: the choices, with those settled that it left open: what learns of the base network, by the device and
            by whether the maps can be kept; and the lengths of trainings, see `Recipe.settled`.
        images: of the recipe's verticals, with products, verticals, splits.
        features: the base network, and what it makes of the images.
        stages: trains models and keeps them with the run.

    Raises:
        BadInputError: see `RunImages`.
    """

    def __init__(
        self,
        run: Run,
        catalogue: Catalogue,
        recipe: Recipe,
        *,
        device: str = "auto",
        base: Embedder | None = None,
        features: Features | None = None,
        split_off_small: bool = False,
    ) -> None:
        self.run, self.device = run, choose_device(device)
        self.images = RunImages(catalogue, recipe, split_off_small=split_off_small)
        is_open = recipe.base_network_learns == "auto"
        if is_open:
            recipe = recipe.learning("last_blocks" if self.device.type == "cpu" else "all")
        self.features = features or Features(self.images, recipe, run.path / "cache", self.device, base)
        if is_open and recipe.learns == "last_blocks" and not self.features.keeps_maps:
            recipe = recipe.learning("no")
            self.features = Features(self.images, recipe, run.path / "cache", self.device, self.features.base)
        self.recipe = recipe.settled()
        self.stages = Stages(run, self.recipe, self.images, self.features, self.device)

    @property
    def target_size(self) -> int:
        """Width of the learning targets and of the unified model."""
        return self.features.base.feature_size if self.recipe.model.size is None else self.recipe.model.size

    def new_embedder(self, **changes: Any) -> Embedder:
        """An embedder as every stage starts from: the same base network, a head that starts along its features.

        It begins as the base network's pooled features in their principal directions, so that a few products cannot
        make it worse than those; see `Head.start_along`.
        """
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.seed)
            embedder = Embedder(replace(self.recipe.model, **changes)).to(self.device)
        base = self.features.base  # another seed would give another one, where it is not pretrained
        embedder.base_network.load_state_dict(base.base_network.state_dict())
        embedder.pooling.load_state_dict(base.pooling.state_dict())
        if isinstance(embedder.head, Head):
            embedder.head.start_along(*(part.to(self.device) for part in self.features.directions))
        return embedder

    def reseeded(self, seed: int) -> RunContext:
        """The same run and features with another seed for heads, batches and proxies."""
        recipe = replace(self.recipe, seed=seed)
        return RunContext(
            self.run,
            self.images.catalogue,
            recipe,
            device=str(self.device),
            features=self.features,
            split_off_small=bool(self.images.small_verticals),
        )


class Stages:
    """Trains the models of a run, each once, and keeps what came of them."""

    def __init__(self, run: Run, recipe: Recipe, images: RunImages, features: Features, device: torch.device) -> None:
        self._run, self._recipe, self._device = run, recipe, device
        self._images, self._features = images, features
        self._held: dict[str, Any] = {}

    def train(self, name: str, inputs: Any, prepare: Callable[[], TrainingJob]) -> TrainedModel:
        """Train one model in its folder of the run, unless that is done; resume it where it was cut off.

        Args:
            name: the folder within the run, such as `specialists/dresses`.
            inputs: JSON-able; together with the recipe's model, data, seed and what learns of the base network, all
                that the result depends on.
            prepare: gives the job; not called when the stage is finished.

        Raises:
            TrainingError: see `fit`.
        """
        key = fingerprint(self.inputs, inputs)
        folder = self._run.path / name
        record = self._run.finished(name, key)
        if record is None or not (folder / "model.safetensors").exists():
            work = self.work_folder(name)
            self._discard_other_work(work, key)
            job = prepare()
            record = self.learn(name, job, work)
            self._keep(name, key, record, job.embedder, job.among)
            shutil.rmtree(work)
        return TrainedModel(name=name, key=key, record=record, folder=folder, device=self._device)

    def keep(
        self,
        name: str,
        key: str,
        record: dict[str, Any],
        make: Callable[[], Embedder],
        among: Bool[np.ndarray, "N"] | None = None,
    ) -> TrainedModel:
        """A model made of trained ones, in its folder of the run; made unless that is done. See `train`."""
        folder = self._run.path / name
        if self._run.finished(name, key) is None or not (folder / "model.safetensors").exists():
            self._keep(name, key, record, make(), among)
        return TrainedModel(name=name, key=key, record=record, folder=folder, device=self._device)

    def _keep(
        self, name: str, key: str, record: dict[str, Any], embedder: Embedder, among: Bool[np.ndarray, "N"] | None
    ) -> None:
        self._run.forget(name)
        embedder.save_pretrained(self._run.path / name, self._card(name, record, among), overwrite=True)
        self._run.finish(name, key, record)

    def copy(self, model: TrainedModel, name: str) -> TrainedModel:
        """A copy of a trained model in another folder of the run, made once; there it is a finished stage, too."""
        folder = self._run.path / name
        done = self._run.finished(name, model.key) is not None and (folder / "model.safetensors").exists()
        if not done and folder != model.folder:
            self._run.forget(name)
            with publishing(folder, overwrite=True) as temporary:
                shutil.copytree(model.folder, temporary, dirs_exist_ok=True)
            self._run.finish(name, model.key, model.record)
        return TrainedModel(name=name, key=model.key, record=model.record, folder=folder, device=self._device)

    @property
    def inputs(self) -> str:
        """Fingerprint of what every training of the run depends on."""
        recipe = to_plain(self._recipe)
        shared = {key: recipe[key] for key in ("seed", "base_network_learns", "last_blocks", "data", "model")}
        if self._features.keeps_maps:
            shared["maps"] = "float16"
        catalogue = self._images.catalogue.fingerprint
        return fingerprint(univert.__version__, catalogue, self._features.base_fingerprint, shared)

    def learn(self, name: str, job: TrainingJob, folder: Path | None = None) -> dict[str, Any]:
        """Train the job's model in place and say how it went; `train` does this and keeps the model.

        Raises:
            TrainingError: see `fit`.
        """
        recipe = self._recipe
        history = fit(
            replace(job, objective=job.objective.to(self._device), score=self.scorer(job)),
            job.source or self._features.source,
            name=name,
            seed=recipe.seed,
            folder=folder or self.work_folder(name),
            base_network_learns=recipe.learns,
            last_blocks=recipe.last_blocks,
            open_log=partial(scalar_log, self._run.path / "log" / name),
        )
        presentations = history.step * job.sampler.batch_size
        return {"steps": history.step, "image_presentations": presentations, **asdict(history)}

    def scorer(self, job: TrainingJob) -> Callable[[], float] | None:
        """What a job's model is judged by as it learns: its own score, or that of `score_of`; None without looks."""
        if not job.looks:
            return None
        return job.score or self.score_of(job.embedder, job.among, job.source)

    def score_of(
        self, embedder: Embedder, among: Bool[np.ndarray, "N"] | None = None, source: Source | None = None
    ) -> Callable[[], float] | None:
        """MAP@R of a model over the labelled validation images `among` those given; None where none is a query.

        Items of scenes ask product pictures, where there are both.
        """
        images, source = self._images, source or self._features.source
        chosen = (images.splits == "val") & (images.products >= 0)
        positions = np.flatnonzero(chosen if among is None else chosen & among)
        if not has_queries(images.products[positions]):
            return None
        return lambda: images.map_at_r(source.embed_all(embedder, positions), positions)

    def remembered(self, stage: str, inputs: Any, compute: Callable[[], Any]) -> dict[str, Any]:
        """What a stage without a model recorded, or what it gives now: a dataclass or plain values.

        `inputs` (JSON-able) are with the catalogue all that the result depends on.
        """
        key = fingerprint(univert.__version__, self._images.catalogue.fingerprint, inputs)
        record = self._run.finished(stage, key)
        if record is None:
            record = to_plain(compute())
            self._run.finish(stage, key, record)
        return record

    def once(self, key: str, compute: Callable[[], T]) -> T:
        """What a function gives, computed once and held in memory; the key names all that it depends on."""
        if key not in self._held:
            self._held[key] = compute()
        held: T = self._held[key]
        return held

    def describe(self, model: TrainedModel, figures: dict[str, float | int | str]) -> None:
        """Write a model's card anew, with figures that were measured after its training."""
        card = replace(self._card(model.name, model.record), figures=figures)
        write_atomic(model.folder / "README.md", card.to_markdown(to_plain(model.embedder.config)))

    def work_folder(self, name: str) -> Path:
        """Where an unfinished stage keeps its checkpoint, and whatever else must not outlive it."""
        return self._run.path / "checkpoints" / name

    def _discard_other_work(self, folder: Path, key: str) -> None:
        """A checkpoint made from other inputs must not be resumed."""
        marker = folder / "inputs.txt"
        if folder.exists() and not (marker.exists() and marker.read_text() == key):
            shutil.rmtree(folder)
        write_atomic(marker, key)

    def _card(self, name: str, record: dict[str, Any], among: Bool[np.ndarray, "N"] | None = None) -> ModelCard:
        names = self._images.vertical_names
        if among is not None:
            names = [vertical for vertical in names if (among & self._images.of_vertical(vertical)).any()]
        return ModelCard(
            name=f"univert {name}",
            recipe_toml=config_to_toml(self._recipe),
            catalogue_fingerprint=self._images.catalogue.fingerprint,
            verticals=names,
            figures={
                "validation MAP@R": "no queries" if record["best_score"] is None else record["best_score"],
                "image presentations": record["image_presentations"],
            },
        )


@contextlib.contextmanager
def scalar_log(folder: Path, first_step: int) -> Iterator[Log]:
    """TensorBoard scalars of one training; what a killed run wrote from `first_step` on is superseded."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=first_step) as writer:
        yield writer.add_scalar
