"""Training a detector on scenes: the project's own loop, with what the frozen layers make of each view kept on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
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
from univert.detection.model import DetectorCard, DetectorModel, make_detector
from univert.detection.scenes import SceneTargets
from univert.detection.ssd import SsdDetector, export_detector
from univert.metrics.detection import DetectionFigures
from univert.models.runtime.engine import ONNX_FILE
from univert.models.runtime.onnx_export import export_published
from univert.training.detection_recipe import DetectionRecipe
from univert.training.jobs import TrainingJob
from univert.training.loop import fit
from univert.training.objectives import Objective
from univert.training.run_context import scalar_log
from univert.training.sources import ImageSource
from univert.training.view_arrays import ViewArrays

STAGE = "detector"
_AT_ONCE = 16


def train_detector(
    scenes: Catalogue, out: Path | str, recipe: DetectionRecipe | None = None, *, device: str = "auto"
) -> dict[str, Any]:
    """Train a detector on a catalogue of scenes, in a folder that keeps all of it; what is finished is not done again.

    The model goes to `out/detector`, with an ONNX file where the extra `serve` is installed. A training that was cut
    off goes on where it was. The weights that find most on the scenes of val (mAP at an overlap of 0.5) are kept.

    Returns:
        the training's `History` as plain values; `model`, its folder; `validation`, its `DetectionFigures`, where there
        are scenes of val; `not_exported`, why it has no ONNX file, if so.

    Raises:
        BadInputError: too few scenes in train, or a choice that cannot be met.
        TrainingError: see `univert.training.loop.fit`.
    """
    recipe, run = recipe or DetectionRecipe(), Run(Path(out))
    scenes = scenes.select(split=("train", "val"))
    if (count := len(scenes.select(split="train"))) < 2:  # batch normalisation needs two
        raise BadInputError(f"{scenes.path}: {count} scenes in train, but at least 2 are needed; give more that split")
    if not recipe.detector.verticals:
        recipe = replace(recipe, detector=replace(recipe.detector, verticals=tuple(scenes.verticals)))
    folder = run.path / STAGE
    with run.locked():
        write_atomic(run.path / "recipe.toml", config_to_toml(recipe))
        key = fingerprint(univert.__version__, scenes.fingerprint, to_plain(recipe))
        record = run.finished(STAGE, key)
        if record is None or not (folder / "model.safetensors").exists():
            record = _train(run, scenes, recipe, run.path / "work" / key, device)
            run.finish(STAGE, key, record)
            shutil.rmtree(run.path / "work", ignore_errors=True)
        problem = None
        if recipe.detector.network == "ssd" and not (folder / ONNX_FILE).exists():
            problem = export_published(folder, export_detector)
    return {"model": str(folder), **record, "not_exported": problem}


def _train(run: Run, scenes: Catalogue, recipe: DetectionRecipe, work: Path, device: str) -> dict[str, Any]:
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = make_detector(recipe.detector).to(choose_device(device))
    model.trainable(recipe.base_network_learns, recipe.last_blocks)
    source = SceneSource(scenes, model, recipe, work)
    val = np.flatnonzero(scenes.column("split") == "val")
    job = TrainingJob(
        embedder=model,
        objective=SumOfTerms(),
        sampler=UniformSampler(source.train, batch_size=recipe.loop.batch_size, seed=recipe.seed),
        loop=recipe.loop,
        score=(lambda: source.measure(model, val).map_50 or 0.0) if len(val) else None,
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
    measured: dict[str, float | None] = {}
    if len(val):
        figures = source.measure(model, val)
        model.config = replace(model.config, least_score=figures.best_score)
        record["validation"] = to_plain(figures)
        measured = {"mAP@50": figures.map_50, "AP@50, any vertical": figures.any_vertical_ap_50}
    card = DetectorCard(
        recipe_toml=config_to_toml(recipe),
        catalogue_fingerprint=scenes.fingerprint,
        verticals=model.config.verticals,
        figures={f"validation {name}": value for name, value in measured.items() if value is not None},
    )
    model.save_pretrained(run.path / STAGE, card, overwrite=True)
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

    Args:
        scenes: of train and val.
        model: the detector; what of it learns must have been chosen.
        recipe: of the views.
        folder: of what is kept.

    Attributes:
        train: positions of the scenes of train.
    """

    def __init__(self, scenes: Catalogue, model: DetectorModel, recipe: DetectionRecipe, folder: Path) -> None:
        loader = ImageLoader(scenes, model.preprocessing, recipe.augmentation, recipe.seed)
        super().__init__(loader, views=recipe.views)
        self.train = np.flatnonzero(scenes.column("split") == "train")
        self.targets = SceneTargets(
            scenes, model.config.verticals, model.preprocessing, recipe.augmentation, recipe.seed
        )
        self._maps: ViewArrays | None = None
        if isinstance(model, SsdDetector) and model.kept_parts:
            self._maps = ViewArrays(
                folder,
                "maps of the frozen layers",
                count=len(scenes),
                augmented=self.train,
                views=recipe.views,
                width=sum(model.kept_sizes),
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
        wanted = []
        for position, view in zip(positions.tolist(), views.tolist(), strict=True):
            boxes, labels, ignored = self.targets.of_view(position, view)
            arrays = {"boxes": boxes, "labels": labels + 1, "ignored": ignored}
            wanted.append({name: torch.from_numpy(value).to(embedder.device) for name, value in arrays.items()})
        terms: Tensor = embedder.losses(self.load(positions, views).to(embedder.device), wanted)
        return terms

    def embed_all(self, embedder: Any, positions: Positions) -> Float[np.ndarray, "L"]:
        """The terms of the loss on unaugmented scenes, without gradients."""
        with torch.no_grad():
            return np.asarray(self.embed(embedder, positions, np.zeros_like(positions)).float().cpu().numpy())

    def measure(self, model: DetectorModel, positions: Positions) -> DetectionFigures:
        """How well a model finds the items of some scenes; it is in evaluation mode then."""
        model.eval()
        parts = [positions[start : start + _AT_ONCE] for start in range(0, len(positions), _AT_ONCE)]
        answers = [
            answer for part in parts for answer in model.answers(self.load(part, np.zeros_like(part)).to(model.device))
        ]
        return self.targets.figures(positions.tolist(), answers)


def _kept_rows(
    model: SsdDetector, loader: ImageLoader, positions: Positions, views: Positions
) -> Iterator[Float[np.ndarray, "B W"]]:
    with torch.inference_mode():
        for images in loader.batches(positions, _AT_ONCE, views):
            yield model.kept_maps(images.to(model.device)).cpu().numpy()
