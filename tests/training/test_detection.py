"""A detector's training through the project's loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.detection.conftest import scenes as scenes
from tests.detection.rooms import CONFIG
from univert.core.errors import BadInputError, TrainingError
from univert.data.catalogue import Catalogue
from univert.detection.engine import load_detector
from univert.detection.scenes import evaluate_detector
from univert.training import detection, loop
from univert.training.detection import SumOfTerms, train_detector
from univert.training.detection_recipe import DetectionLoop, DetectionRecipe

RECIPE = DetectionRecipe(
    views=2,
    detector=replace(CONFIG, verticals=()),
    loop=DetectionLoop(epochs=1, min_steps=12, batch_size=4, evaluations=3, learning_rate=3e-3),
)


def test_training_finds_more_than_nothing_and_is_done_once(
    scenes: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(RECIPE, base_network_learns="all", loop=replace(RECIPE.loop, min_steps=60))
    done = train_detector(scenes, tmp_path, recipe, device="cpu")
    first, last = done.record["loss_curve"][0][1], done.record["loss_curve"][-1][1]
    assert last < 0.8 * first
    assert done.not_exported is None
    detector = load_detector(done.path)
    assert detector.verticals == ("discs", "squares")
    assert evaluate_detector(detector, scenes.select(split="train")).photos == 12
    assert (tmp_path / "log" / "detector").is_dir()
    assert not (tmp_path / "work").exists()
    monkeypatch.setattr(detection, "fit", None)
    assert train_detector(scenes, tmp_path, recipe, device="cpu").record == done.record


@pytest.fixture
def unexported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting takes seconds, and has tests of its own."""
    monkeypatch.setattr(detection, "export_detector", lambda folder: None)


@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize("learns", ["no", "last_blocks"])
def test_after_a_kill_the_next_run_goes_on_to_the_same_end(
    scenes: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, learns: str
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_SECONDS", 0)
    recipe = replace(RECIPE, base_network_learns=learns)
    expected = load_file(train_detector(scenes, tmp_path / "a", recipe, device="cpu").path / "model.safetensors")
    forward, steps = SumOfTerms.forward, iter(range(10))

    def interrupted(*arguments: object) -> torch.Tensor:
        if next(steps) == 7:
            raise KeyboardInterrupt
        return forward(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(SumOfTerms, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_detector(scenes, tmp_path / "b", recipe, device="cpu")
    assert (tmp_path / "b" / "work" / "checkpoint.pt").exists()
    monkeypatch.setattr(SumOfTerms, "forward", forward)
    found = load_file(train_detector(scenes, tmp_path / "b", recipe, device="cpu").path / "model.safetensors")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


@pytest.mark.usefixtures("unexported")
def test_a_loss_that_explodes_is_named(scenes: Catalogue, tmp_path: Path) -> None:
    wild = replace(RECIPE, loop=replace(RECIPE.loop, learning_rate=1e30))
    with pytest.raises(TrainingError, match=r"detector: .*; lower loop.learning_rate"):
        train_detector(scenes, tmp_path, wild, device="cpu")


@pytest.mark.usefixtures("unexported")
def test_scenes_of_train_are_needed(scenes: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="no scenes in train"):
        train_detector(scenes.select(split="test"), tmp_path, RECIPE)
    done = train_detector(scenes.select(split="train"), tmp_path, RECIPE, device="cpu")
    assert "validation" not in done.record
    assert np.isfinite([loss for _, loss in done.record["loss_curve"]]).all()
