"""Grow: a deployed model learns one more vertical, and the vectors already in the index stay valid."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from univert.core.config import from_plain, read_settings, to_plain
from univert.core.errors import BadInputError
from univert.core.files import folder_name, write_atomic
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.metrics.compatibility import GrowthFigures, growth_figures
from univert.metrics.inputs import has_queries
from univert.models.embedder import Embedder
from univert.training.grow.checks import card_figures, check_base, check_labels, check_verticals, refusal_of
from univert.training.grow.learning import growth_job, growth_targets
from univert.training.grow.lineage import Growth, Lineage
from univert.training.jobs import TrainedModel
from univert.training.label_config import SpecialistsConfig
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.specialists import presentations, train_on_labels, train_specialist
from univert.training.view_arrays import ViewArrays

SPLITS = ("val", "test")


@dataclass(frozen=True, kw_only=True)
class GrowResult:
    """What came of a growth.

    Attributes:
        path: the growth's folder.
        vertical: what was to be added.
        published: whether its model is deployed now.
        reason: why, or why not, in one line.
        figures: by split (`val` decides, `test` is reported); a split without queries is absent.
        model_fingerprint: of the grown model.
        index_model_path: the model whose vectors of the vertical belong in the index.
        compatible_models: fingerprints of the models whose queries the index should answer, the oldest first.
    """

    path: Path
    vertical: str
    published: bool
    reason: str
    figures: dict[str, GrowthFigures]
    model_fingerprint: str
    index_model_path: Path
    compatible_models: tuple[str, ...]

    @property
    def model_path(self) -> Path:
        """The grown model's folder."""
        return self.path / "unified"


def grow(
    run_path: Path | str,
    catalogue: Catalogue | Path | str,
    vertical: str,
    *,
    indexed_by: str | None = None,
    settings: Sequence[str] = (),
    force: bool = False,
    device: str = "auto",
) -> GrowResult:
    """Add a vertical to a run's deployed model, and publish the result unless something was lost.

    The new model's targets for the old verticals are the embeddings that the index holds, so nothing has to be indexed
    again. Started again it goes on where it was; a growth that was published is only looked up.

    Args:
        run_path: a finished run.
        catalogue: images of the new vertical, labelled, and of all verticals that the run has, labelled or not.
        vertical: the new one.
        indexed_by: fingerprint of the model that made the index, where that is not the run's original model.
        settings: changes of the run's recipe, `key=value`; those of `grow` and `specialists` make sense.
        force: publish in spite of a loss.
        device: a torch device, or `auto`.

    Raises:
        BadInputError: no finished run, a vertical that it was trained on, or images that are missing.
        TrainingError: a training failed; what was done is kept.
    """
    catalogue = catalogue if isinstance(catalogue, Catalogue) else Catalogue.open(catalogue)
    run_path = Path(run_path).absolute()
    Lineage.read(run_path)  # refuses what is no run, before a lock would make it a folder
    with Run(run_path).locked():
        lineage = Lineage.read(run_path)
        compatible = lineage.models_since(indexed_by)
        published = lineage.growth_of(vertical)
        if published is not None:
            later = published.number > lineage.number_of(indexed_by)
            if later and published.model_fingerprint not in compatible:
                raise BadInputError(
                    f"{vertical} came in with a model that was held to the vectors of another index, not of this one "
                    f"by {indexed_by}; make the index anew with the deployed model"
                )
            return _result(lineage, run_path / published.folder, indexed_by, "it was published before")
        recipe = read_settings(Recipe, run_path / "recipe.toml", settings)
        if recipe.specialists.by_source:
            raise BadInputError(
                f"{run_path} divides its verticals by source, and such a run cannot grow; train it anew"
            )
        growing = _Growing(lineage, catalogue, vertical, recipe, indexed_by=indexed_by, device=device)
        figures = growing.train_and_measure()
        refusal = refusal_of(figures.get("val"), limit=recipe.grow.limit)
        if refusal is not None and not force:
            return _result(lineage, growing.path, indexed_by, refusal)
        lineage = lineage.publish(growing.entry(forced=refusal is not None))
        reason = f"forced: {refusal}" if refusal else "no loss on the validation images beyond chance and tolerance"
        return _result(lineage, growing.path, indexed_by, reason)


class _Growing:
    """One growth at work in its own folder; every stage is done once."""

    def __init__(
        self,
        lineage: Lineage,
        catalogue: Catalogue,
        vertical: str,
        recipe: Recipe,
        *,
        indexed_by: str | None,
        device: str,
    ) -> None:
        check_verticals(lineage, catalogue, vertical)
        self._lineage, self._vertical = lineage, vertical
        self._folder = f"grown/{len(lineage.growths) + 1}-{folder_name(vertical)}"
        self.path = lineage.run_path / self._folder
        self._vectors_of = lineage.vectors_of(indexed_by)
        names = tuple(sorted((*lineage.verticals, vertical)))
        recipe = replace(recipe, data=replace(recipe.data, verticals=names, unsorted=None))
        self._context = RunContext(Run(self.path), catalogue, recipe, device=device)
        check_labels(self._context.images, vertical)
        self._models = {
            name: Embedder.from_pretrained(folder).to(self._context.device)
            for name, folder in lineage.models.items()
            if name in {lineage.deployed, *self._vectors_of.values()}
        }
        self._deployed = self._models[lineage.deployed]
        check_base(self._deployed, self._context)

    def entry(self, *, forced: bool) -> Growth:
        """This growth in the lineage."""
        return Growth(
            number=len(self._lineage.growths) + 1,
            vertical=self._vertical,
            folder=self._folder,
            model_fingerprint=Embedder.from_pretrained(self.path / "unified").fingerprint,
            vectors_of=self._vectors_of,
            forced=forced,
        )

    def train_and_measure(self) -> dict[str, GrowthFigures]:
        """Train what is missing; what the grown model does, by split."""
        context, config = self._context, self._context.recipe.grow
        specialist = train_specialist(context, self._vertical)
        joint_config = SpecialistsConfig(loss="proxy-nca", loop=context.recipe.specialists.loop)
        joint = train_on_labels(context, joint_config, name="members/joint")
        targets = growth_targets(
            context,
            self._vertical,
            deployed=self._deployed,
            indexed_by={name: self._models[model] for name, model in self._vectors_of.items()},
            specialist=specialist.embedder,
            joint=joint.embedder,
        )
        grown = context.stages.train(
            "unified",
            {
                "deployed": self._lineage.deployed,
                "vectors_of": self._vectors_of,
                "learned_from": [specialist.key, joint.key],
                "loop": to_plain(config.loop),
            },
            lambda: growth_job(
                context, self._vertical, deployed=self._deployed, targets=targets.arrays, loop=config.loop
            ),
        )
        record = context.stages.remembered(
            "evaluation",
            [grown.key, config.tolerance, context.recipe.evaluation.resamples],
            lambda: self._measure(specialist, grown, targets.arrays),
        )
        figures = {split: from_plain(GrowthFigures, values, where=split) for split, values in record.items()}
        context.stages.describe(grown, card_figures(figures))
        content = {
            **to_plain(self.entry(forced=False)),
            "catalogue_fingerprint": context.images.catalogue.fingerprint,
            "image_presentations": presentations([specialist, joint, grown]),
            "targets": {"members": targets.members, "val_map_at_r": targets.scores},
            "figures": record,
        }
        write_atomic(self.path / "grow.json", json.dumps(content, indent=1))
        return figures

    def _measure(self, specialist: TrainedModel, grown: TrainedModel, targets: ViewArrays) -> dict[str, GrowthFigures]:
        context, found = self._context, dict[str, GrowthFigures]()
        columns = {name: context.images.catalogue.column(name) for name in ("product", "vertical")}
        for split in SPLITS:
            here = np.flatnonzero(context.images.splits == split)
            if not has_queries(context.images.products[here]):
                continue
            is_new = context.images.of_vertical(self._vertical)[here]
            stored = targets.clean(here)
            stored[is_new] = context.features.source.embed_all(self._deployed, here[is_new])
            found[split] = growth_figures(
                split,
                self._vertical,
                stored=stored,
                new=context.features.source.embed_all(grown.embedder, here),
                specialist=context.features.source.embed_all(specialist.embedder, here[is_new]),
                products=list(columns["product"][here]),
                verticals=list(columns["vertical"][here]),
                tolerance=context.recipe.grow.tolerance,
                resamples=context.recipe.evaluation.resamples,
                seed=context.recipe.seed,
            )
        return found


def _result(lineage: Lineage, folder: Path, indexed_by: str | None, reason: str) -> GrowResult:
    record = json.loads((folder / "grow.json").read_text())
    vertical = record["vertical"]
    published = lineage.growth_of(vertical) is not None
    model = lineage.vectors_of(indexed_by)[vertical] if published else record["model_fingerprint"]
    return GrowResult(
        path=folder,
        vertical=vertical,
        published=published,
        reason=reason,
        figures={split: from_plain(GrowthFigures, each) for split, each in record["figures"].items()},
        model_fingerprint=record["model_fingerprint"],
        index_model_path=lineage.models.get(model, folder / "unified"),
        compatible_models=tuple(lineage.models_since(indexed_by)),
    )
