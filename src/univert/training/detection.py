"""Training a detector on scenes: the project's own loop, with what the frozen layers make of each view kept on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import univert
from univert.core.config import config_to_toml, to_plain
from univert.core.errors import BadInputError
from univert.core.files import fingerprint, write_atomic
from univert.core.run import Run
from univert.core.tensors import choose_device
from univert.data.catalogue import Catalogue
from univert.data.loading import ImageLoader
from univert.data.samplers import Positions, UniformSampler
from univert.detection.boxes import to_photo
from univert.detection.config import DetectorConfig
from univert.detection.model import Answer, DetectorCard, DetectorModel, Target, make_detector
from univert.detection.onnx_export import export_detector
from univert.detection.scenes import LEAST_SCORE, SceneTargets
from univert.detection.ssd import SsdDetector
from univert.metrics.detection import DetectionFigures, Found, detection_figures
from univert.models.runtime.onnx_export import ExportError
from univert.training.detection_recipe import DetectionRecipe
from univert.training.jobs import TrainingJob
from univert.training.loop import fit
from univert.training.objectives import Objective
from univert.training.run_context import scalar_log
from univert.training.sources import ImageSource
from univert.training.view_arrays import ViewArrays

STAGE = "detector"
_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class TrainedDetector:
    """What came of a detector's training: the model's folder, its record, and why it has no ONNX file, if so."""

    path: Path
    record: dict[str, Any]
    not_exported: str | None


def train_detector(
    scenes: Catalogue, out: Path | str, recipe: DetectionRecipe | None = None, *, device: str = "auto"
) -> TrainedDetector:
    """Train a detector on a catalogue of scenes, in a folder that keeps all of it; what is finished is not done again.

    The model goes to `out/detector`, with an ONNX file where the extra `serve` is installed. A training that was cut
    off goes on where it was. The weights that find most on the scenes of val (mAP at an overlap of 0.5) are kept.

    Raises:
        BadInputError: no scenes in train, or a choice that cannot be met.
        TrainingError: see `univert.training.loop.fit`.
    """
    recipe, run = recipe or DetectionRecipe(), Run(Path(out))
    scenes = scenes.select(split=("train", "val"))
    if not len(scenes.select(split="train")):
        raise BadInputError(f"{scenes.path}: no scenes in train; give some the split train")
    config = recipe.detector
    if not config.verticals:
        config = replace(config, verticals=tuple(scenes.verticals))
    with run.locked():
        write_atomic(run.path / "recipe.toml", config_to_toml(recipe))
        key = fingerprint(univert.__version__, scenes.fingerprint, to_plain(recipe))
        folder = run.path / STAGE
        record = run.finished(STAGE, key)
        if record is None or not (folder / "model.safetensors").exists():
            record = _train(run, scenes, config, recipe, key, device)
            run.finish(STAGE, key, record)
            shutil.rmtree(run.path / "work")
        problem = None
        try:
            if not (folder / "model.onnx").exists():
                export_detector(folder)
        except ExportError as error:
            problem = f"{folder}: {error}"
    return TrainedDetector(path=folder, record=record, not_exported=problem)


def _train(
    run: Run, scenes: Catalogue, config: DetectorConfig, recipe: DetectionRecipe, key: str, device: str
) -> dict[str, Any]:
    work = run.path / "work"
    marker = work / "inputs.txt"
    if work.exists() and not (marker.exists() and marker.read_text() == key):
        shutil.rmtree(work)
    write_atomic(marker, key)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = make_detector(config).to(choose_device(device))
    model.trainable(recipe.base_network_learns, recipe.last_blocks)
    splits = scenes.column("split")
    train, val = (np.flatnonzero(splits == split) for split in ("train", "val"))
    targets = SceneTargets(scenes, config.verticals, model.preprocessing, recipe.augmentation, recipe.seed)
    loader = ImageLoader(scenes, model.preprocessing, recipe.augmentation, recipe.seed)
    source = SceneSource(loader, targets, recipe.views, model, train, work / "maps")
    best: dict[str, float] = {}

    def score() -> float:
        figures = source.measure(model, val)
        best.update({"any_vertical_ap_50": figures.any_vertical_ap_50 or 0.0})
        return figures.map_50 or 0.0

    job = TrainingJob(
        embedder=model,
        objective=SumOfTerms(),
        sampler=UniformSampler(train, batch_size=recipe.loop.batch_size, seed=recipe.seed),
        loop=recipe.loop,
        score=score if len(val) else None,
        monitor=lambda: best,
    )
    history = fit(
        job,
        source,
        name=STAGE,
        seed=recipe.seed,
        folder=work,
        base_network_learns=recipe.base_network_learns,
        last_blocks=recipe.last_blocks,
        open_log=partial(scalar_log, run.path / "log" / STAGE),
    )
    record: dict[str, Any] = asdict(history)
    if len(val):
        figures = source.measure(model, val)
        model.config = replace(model.config, least_score=figures.best_score)
        record["validation"] = to_plain(figures)
    model.save_pretrained(run.path / STAGE, _card(model, scenes, recipe, record), overwrite=True)
    return record


class SumOfTerms(Objective):
    """The sum of the terms of a loss, which the source has computed already."""

    def forward(self, embeddings: Float[Tensor, "L"], positions: Positions, views: Positions) -> Float[Tensor, ""]:
        """See `Objective`."""
        return embeddings.sum()


class SceneSource(ImageSource):
    """Gives the terms of a detector's loss for some scenes and views.

    What the detector's frozen layers make of them is kept on disk at half precision (`SsdDetector.kept_maps`), so that
    a step costs a tenth.
    """

    def __init__(
        self,
        loader: ImageLoader,
        targets: SceneTargets,
        views: int,
        model: DetectorModel,
        train: Positions,
        folder: Path,
    ) -> None:
        super().__init__(loader, views=views)
        self._targets, self._maps = targets, None
        if isinstance(model, SsdDetector) and model.kept_parts:
            self._maps = ViewArrays(
                folder,
                "maps of the frozen layers",
                count=len(targets.sizes),
                augmented=train,
                views=views,
                width=model.row_size,
                compute=partial(_kept_rows, model, loader),
                dtype=np.float16,
            )
            self._maps.compute_missing()

    def load(self, positions: Positions, views: Positions) -> Tensor:
        """Kept rows, or images as the network takes them."""
        if self._maps is None:
            return super().load(positions, views)
        return torch.from_numpy(self._maps.gather(positions, views))

    def prefetch(self, positions: Positions, views: Positions) -> None:
        """Begin to decode a batch in the background, where images are needed."""
        if self._maps is None:
            super().prefetch(positions, views)

    def embed(self, embedder: Any, positions: Positions, views: Positions) -> Float[Tensor, "L"]:
        """The terms of the loss, with gradients."""
        device = embedder.device
        terms: Tensor = embedder.losses(self.load(positions, views).to(device), self._wanted(positions, views, device))
        return terms

    def embed_all(self, embedder: Any, positions: Positions) -> Float[np.ndarray, "L"]:
        """The terms of the loss on unaugmented scenes, without gradients."""
        with torch.no_grad():
            return np.asarray(self.embed(embedder, positions, np.zeros_like(positions)).float().cpu().numpy())

    def measure(self, model: DetectorModel, positions: Positions) -> DetectionFigures:
        """How well a model finds the items of some scenes."""
        found: list[Found] = []
        for start in range(0, len(positions), _AT_ONCE):
            part = positions[start : start + _AT_ONCE]
            inputs = self.load(part, np.zeros_like(part)).to(model.device)
            answers: Sequence[Answer] = model.answers(inputs, LEAST_SCORE)
            for position, (boxes, scores, labels) in zip(part.tolist(), answers, strict=True):
                found.append((to_photo(boxes, self._targets.sizes[position], model.preprocessing), scores, labels))
        truth = [self._targets.of_photo(position) for position in positions.tolist()]
        return detection_figures(truth, found, model.config.verticals)

    def _wanted(self, positions: Positions, views: Positions, device: torch.device) -> list[Target]:
        found = []
        for position, view in zip(positions.tolist(), views.tolist(), strict=True):
            boxes, labels, ignored = self._targets.of_view(position, view)
            target = {"boxes": boxes, "labels": labels + 1, "ignored": ignored}
            found.append({name: torch.from_numpy(value).to(device) for name, value in target.items()})
        return found


def _kept_rows(
    model: SsdDetector, loader: ImageLoader, positions: Positions, views: Positions
) -> Iterator[Float[np.ndarray, "B W"]]:
    with torch.inference_mode():
        for images in loader.batches(positions, _AT_ONCE, views):
            yield model.kept_maps(images.to(model.device)).cpu().numpy()


def _card(model: DetectorModel, scenes: Catalogue, recipe: DetectionRecipe, record: dict[str, Any]) -> DetectorCard:
    measured = record.get("validation", {})
    figures = {
        "validation mAP@50": measured.get("map_50"),
        "validation AP@50, any vertical": measured.get("any_vertical_ap_50"),
        "steps": record["step"],
    }
    return DetectorCard(
        recipe_toml=config_to_toml(recipe),
        catalogue_fingerprint=scenes.fingerprint,
        verticals=model.config.verticals,
        figures={name: value for name, value in figures.items() if value is not None},
    )
