from __future__ import annotations

import hypothesis
import pytest
import torch

from tests.drawn import drawn_rows
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.models.config import EmbedderConfig
from univert.training.combine.config import CombineConfig
from univert.training.label_config import LabelLoopConfig, LoopConfig, SpecialistsConfig
from univert.training.recipe import DataConfig, EvaluationConfig, Recipe
from univert.training.targets.config import UnifyConfig

hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")


def pytest_runtest_setup() -> None:
    """An engine sets the threads of the whole process: they end with its test."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    out = tmp_path_factory.mktemp("catalogue") / "drawn.lance"
    build_catalogue(drawn_rows(), out)
    return Catalogue.open(out)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    short = {"epochs": 1, "min_steps": 12, "batch_size": 12, "evaluations": 3}
    return Recipe(
        data=DataConfig(views=2),
        model=EmbedderConfig(
            base_network="timm/test_efficientnet", pretrained=False, hidden_sizes=(16,), size=8, image_size_px=32
        ),
        specialists=SpecialistsConfig(loop=LabelLoopConfig(images_per_product=3, **short)),
        combine=CombineConfig(mode="off"),
        unify=UnifyConfig(loop=LoopConfig(**short)),
        evaluation=EvaluationConfig(resamples=20),
    )
