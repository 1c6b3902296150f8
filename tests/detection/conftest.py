from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import made_once
from tests.detection.rooms import CONFIG, drawn_scenes
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.detection.model import load_detector_model
from univert.detection.onnx_export import export_detector
from univert.detection.ssd import SsdDetector


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    made = made_once(
        tmp_path_factory, "scenes", lambda folder: build_catalogue(drawn_scenes(), folder / "scenes.lance")
    )
    return Catalogue.open(made / "scenes.lance", scenes=True)


def make_saved(folder: Path) -> None:
    torch.manual_seed(0)
    model = SsdDetector(CONFIG).save_pretrained(folder / "model")
    assert export_detector(model) == model / "model.onnx"


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained detector, saved and exported."""
    return made_once(tmp_path_factory, "detector", make_saved) / "model"


@pytest.fixture
def model(saved: Path) -> SsdDetector:
    loaded = load_detector_model(saved)
    assert isinstance(loaded, SsdDetector)
    return loaded
