"""The main job: catalogue -> specialists -> groups -> unified model -> evaluation -> report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from univert.core.config import config_from_toml
from univert.core.errors import BadInputError, did_you_mean
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.models.embedder import Embedder
from univert.models.runtime.onnx_export import export_published
from univert.report.page import report_run
from univert.training.recipe import Recipe
from univert.training.stages import FinishedRun, run_stages


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run produced.

    Attributes:
        path: the run folder.
        finished: what was trained and measured.
        not_exported: why the unified model has no `model.onnx`, in a line; None where it has one or nothing serves.
    """

    path: Path
    finished: FinishedRun
    not_exported: str | None = None

    @property
    def results(self) -> dict[str, Any]:
        """The content of `evaluation.json`."""
        return self.finished.results

    @property
    def model_path(self) -> Path:
        """The unified model's folder."""
        return self.path / "unified"

    @property
    def model(self) -> Embedder:
        """The unified model."""
        return Embedder.from_pretrained(self.model_path)

    def recall_at_1(self, key: str) -> float:
        """Merged-gallery Recall@1 of a row, on the test split.

        Raises:
            BadInputError: the run has no such row, or measured nothing.
        """
        found = {one.row.key: one.evaluation.merged for one in self.finished.compared}
        if key not in found:
            known = did_you_mean(key, found) if found else "nothing was: no product has two images in test"
            raise BadInputError(f"{key!r} was not measured on the test split; {known}")
        return found[key].recall_at[1].value


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
        recipe: the choices; None takes those the run was begun with or, for a new one, the defaults, which are good.
        device: a torch device, or `auto`.
        report: write `report.html`, and `model.onnx` beside the unified model if the extra `serve` is installed.

    Raises:
        BadInputError: the catalogue or the recipe cannot be used.
        TrainingError: a training failed; what was done is kept.
    """
    catalogue = catalogue if isinstance(catalogue, Catalogue) else Catalogue.open(catalogue)
    run = Run(Path(out))
    begun = run.path / "recipe.toml"
    if recipe is None:
        recipe = config_from_toml(Recipe, begun) if begun.exists() else Recipe()
    with run.locked():
        finished = run_stages(run, catalogue, recipe, device=device)
        if report:
            report_run(finished)
        not_exported = export_published(run.path / "unified") if report else None
    return TrainResult(path=run.path, finished=finished, not_exported=not_exported)
