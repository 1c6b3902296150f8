"""A detector's training through the project's loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.detection.conftest import scenes as scenes
from tests.detection.rooms import RECIPE
from univert.core.errors import BadInputError
from univert.data.catalogue import Catalogue
from univert.detection.engine import load_detector
from univert.training import loop
from univert.training.detection import SumOfTerms, train_detector

pytestmark = pytest.mark.usefixtures("published")


def test_training_finds_more_than_nothing(scenes: Catalogue, tmp_path: Path) -> None:
    recipe = replace(RECIPE, base_network_learns="all", loop=replace(RECIPE.loop, min_steps=30))
    done = train_detector(scenes, tmp_path, recipe, device="cpu")
    assert done["loss_curve"][-1][1] < 0.8 * done["loss_curve"][0][1]
    assert load_detector(done["model"]).verticals == ("discs", "squares")
    assert (tmp_path / "log" / "detector").is_dir()
    assert not (tmp_path / "work").exists()


def weights_of(scenes: Catalogue, out: Path) -> dict[str, torch.Tensor]:
    done = train_detector(scenes, out, RECIPE, device="cpu")
    return load_file(Path(done["model"]) / "model.safetensors")


def test_after_a_kill_the_next_run_goes_on_to_the_same_end(
    scenes: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_SECONDS", 0)
    expected = weights_of(scenes, tmp_path / "a")
    forward, steps = SumOfTerms.forward, iter(range(10))

    def interrupted(*arguments: object) -> torch.Tensor:
        if next(steps) == 7:
            raise KeyboardInterrupt
        return forward(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(SumOfTerms, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        weights_of(scenes, tmp_path / "b")
    assert list(tmp_path.glob("b/work/*/checkpoint.pt"))
    monkeypatch.setattr(SumOfTerms, "forward", forward)
    found = weights_of(scenes, tmp_path / "b")
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_scenes_of_train_are_needed(scenes: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="0 scenes in train, but at least 2 are needed"):
        train_detector(scenes.select(split="test"), tmp_path, RECIPE)
    done = train_detector(scenes.select(split="train"), tmp_path, RECIPE, device="cpu")
    assert "validation" not in done
    assert np.isfinite([loss for _, loss in done["loss_curve"]]).all()
