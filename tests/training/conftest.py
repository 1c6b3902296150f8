from __future__ import annotations

import pytest

from tests.training.shop import Shop, open_shop
from univert.data.catalogue import Catalogue
from univert.training.recipe import Recipe


@pytest.fixture(scope="session")
def shop(catalogue: Catalogue, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return open_shop(catalogue, recipe, tmp_path_factory.mktemp("shop"))
