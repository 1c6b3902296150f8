from pathlib import Path

import pytest

from tests.training.shop import Shop, open_shop
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext


@pytest.fixture(scope="session")
def shop(catalogue: Catalogue, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return open_shop(catalogue, recipe, tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="session")
def computed(catalogue: Catalogue, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    """A run whose features others may read."""
    return RunContext(Run(tmp_path_factory.mktemp("computed")), catalogue, recipe)


@pytest.fixture
def context(computed: RunContext, tmp_path: Path) -> RunContext:
    """A run of the drawn catalogue with nothing but its features."""
    return RunContext(Run(tmp_path), computed.images.catalogue, computed.recipe, features=computed.features)
