"""How a trial is trained and measured: by the probe's small heads, or in full as the specialists are trained."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, partial

from univert.core.config import to_plain
from univert.core.files import fingerprint
from univert.core.terminal import progress_bar
from univert.losses.names import LOSSES
from univert.models.embedder import Embedder
from univert.training.combine.folds import Embed, Folds, Measured
from univert.training.combine.groups import Group, Measure
from univert.training.label_config import SpecialistsConfig
from univert.training.label_training import label_job
from univert.training.loop import fit
from univert.training.run_context import RunContext
from univert.training.sources import CachedSource
from univert.training.specialists import train_together

HIDDEN_SIZES = (256,)
SIZE = 128
STEPS = 80
"""For each vertical of the group."""
VIEWS = 2
"""Augmented views that the heads learn from, at most."""
IMAGES = 2000
"""Labelled training images of a vertical that take part, at most; whole products are drawn."""


class Probe:
    """Trains one small head on some verticals for each fold, and measures it on what it did not learn from.

    Batches, loss, learning rates and looks are the specialists'; head, views and steps are smaller, and the
    features are those of the untrained base network. Strong negatives are not mined, and dynamic assignment gives way
    to Proxy-NCA. The outcome of each set of verticals is kept with the run.
    """

    def __init__(self, context: RunContext) -> None:
        recipe = context.recipe
        self._context, self._config = context, _simplified(recipe.specialists)
        self._folds = Folds(context, recipe.combine.folds, most_images=IMAGES)

    def __call__(self, verticals: Group) -> Measured:
        """What happens to the queries of each vertical after training on all of them; from the run's record if there.

        Raises:
            BadInputError: a vertical has too few labelled images to learn from.
        """
        return self._folds.kept(
            f"probe/{self._context.images.folder_of(*verticals)}", self._inputs, verticals, self._models
        )

    @cached_property
    def _inputs(self) -> str:
        recipe = self._context.recipe
        return fingerprint(
            self._context.features.base_fingerprint,
            to_plain([recipe.data, recipe.model.preprocessing(), self._config]),
            [HIDDEN_SIZES, SIZE, STEPS, VIEWS, IMAGES],
            recipe.combine.folds,
            recipe.seed,
        )

    def _models(self, verticals: Group) -> Iterator[tuple[int, Embed]]:
        with progress_bar(f"probe of {' + '.join(verticals)}", self._folds.trainings, unit="trainings") as advance:
            for training in range(self._folds.trainings):
                yield training, partial(self._source.embed_all, self._train(verticals, training))
                advance(1)

    @cached_property
    def _source(self) -> CachedSource:
        return self._context.features.frozen_source(min(VIEWS, self._context.recipe.data.views))

    @cached_property
    def _untrained(self) -> Embedder:
        return self._context.new_embedder(size=SIZE, hidden_sizes=HIDDEN_SIZES, batch_norm=False)

    @cached_property
    def _start(self) -> dict[str, object]:
        return {name: value.clone() for name, value in self._untrained.head.state_dict().items()}

    def _train(self, verticals: Group, training: int) -> Embedder:
        """Train the head, from the same start every time; what it gives holds until the next training."""
        context, embedder = self._context, self._untrained
        embedder.head.load_state_dict(self._start)
        among = self._folds.among(verticals, training)
        folder = context.stages.work_folder("probe")
        job = label_job(context, self._config, among, folder=folder, embedder=embedder, source=self._source)
        loop = replace(self._config.loop, epochs=1, min_steps=STEPS * len(verticals))
        objective = job.objective.to(context.device)
        job = replace(job, objective=objective, loop=loop, monitor=None)
        job = replace(job, score=context.stages.scorer(job))
        name = f"probe/{context.images.folder_of(*verticals)}"
        fit(job, self._source, name=name, seed=context.recipe.seed, folder=None)
        return embedder


def _simplified(config: SpecialistsConfig) -> SpecialistsConfig:
    """The same without what the probe leaves out."""
    if LOSSES[config.loss].proxies == "dynamic":
        return SpecialistsConfig(loss="proxy-nca", loop=config.loop)
    return replace(config, mine_every_steps=0)


def full_measure(context: RunContext) -> Measure:
    """Trials that train as the specialists do; the measure behind `mode = "full"`."""
    recipe = context.recipe
    folds = Folds(context, recipe.combine.folds)
    inputs = fingerprint(context.stages.inputs, to_plain([recipe.specialists, recipe.combine.folds]))

    def name(verticals: Group, training: int) -> str:
        return f"trials/fold-{training}/{context.images.folder_of(*verticals)}"

    def models(verticals: Group) -> Iterator[tuple[int, Embed]]:
        for training in range(folds.trainings):
            among = folds.among(verticals, training)
            model = train_together(context, verticals, name=name(verticals, training), among=among)
            yield training, partial(context.features.source.embed_all, model.embedder)

    def measure(verticals: Group) -> Measured:
        measured = folds.kept(f"trials/{context.images.folder_of(*verticals)}", inputs, verticals, models)
        for training in range(folds.trainings):  # the models serve this measure alone, so its outcome is what is kept
            shutil.rmtree(context.run.path / name(verticals, training), ignore_errors=True)
        return measured

    return measure
