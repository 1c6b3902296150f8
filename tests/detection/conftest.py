from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import made_once
from tests.detection.rooms import RECIPE, drawn_scenes
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.detection.model import load_detector_model
from univert.detection.ssd import SsdDetector
from univert.training.detection import train_detector


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    made = made_once(
        tmp_path_factory, "scenes", lambda folder: build_catalogue(drawn_scenes(), folder / "scenes.lance")
    )
    return Catalogue.open(made / "scenes.lance", scenes=True)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, scenes: Catalogue) -> Path:
    """A detector that was hardly trained, and exported, in its run."""
    return made_once(tmp_path_factory, "detector", lambda folder: train_detector(scenes, folder, RECIPE, device="cpu"))


@pytest.fixture
def saved(run_folder: Path) -> Path:
    return run_folder / "detector"


@pytest.fixture
def model(saved: Path) -> SsdDetector:
    loaded = load_detector_model(saved)
    assert isinstance(loaded, SsdDetector)
    return loaded
