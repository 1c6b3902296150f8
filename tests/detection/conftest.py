from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.detection.rooms import CONFIG, drawn_scenes
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.detection.model import load_detector_model
from univert.detection.onnx_export import export_detector
from univert.detection.ssd import SsdDetector


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    out = tmp_path_factory.mktemp("scenes") / "scenes.lance"
    build_catalogue(drawn_scenes(), out)
    return Catalogue.open(out, scenes=True)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained detector, saved and exported."""
    torch.manual_seed(0)
    folder = SsdDetector(CONFIG).save_pretrained(tmp_path_factory.mktemp("detector") / "model")
    assert export_detector(folder) == folder / "model.onnx"
    return folder


@pytest.fixture
def model(saved: Path) -> SsdDetector:
    loaded = load_detector_model(saved)
    assert isinstance(loaded, SsdDetector)
    return loaded
