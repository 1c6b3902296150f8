"""A run on two verticals, and a catalogue with two more, for tests of growing."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.drawn import drawn_rows
from univert.core.config import config_to_toml
from univert.core.run import Run
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.rows import SourceRow
from univert.training.grow.config import GrowConfig
from univert.training.grow.growing import GrowResult, grow
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.specialists import train_on_labels

NEW = ("hats", "rings")


def four_verticals() -> Iterator[SourceRow]:
    """The two drawn verticals, and the same pictures again under two further names."""
    for row in drawn_rows():
        yield row
        name = NEW[row.vertical == "squares"]
        yield replace(
            row,
            id=f"{name}-{row.id}",
            origin=f"{name}-{row.id}",
            vertical=name,
            product=None if row.product is None else f"{name}-{row.product}",
        )


def train_old(shop: Catalogue, recipe: Recipe, path: Path) -> None:
    """What growing needs of a run on the two old verticals: some model of both, its recipe and its groups."""
    loop = replace(recipe.unify.loop, min_steps=6, evaluations=3)
    recipe = replace(
        recipe,
        data=replace(recipe.data, verticals=("discs", "squares"), views=1),
        specialists=replace(recipe.specialists, loop=replace(recipe.specialists.loop, min_steps=6)),
        grow=GrowConfig(loop=loop, tolerance=0.9, limit=1.0),
        evaluation=replace(recipe.evaluation, bounds_images=0),
    )
    train_on_labels(RunContext(Run(path), shop, recipe), recipe.specialists, name="unified")
    (path / "recipe.toml").write_text(config_to_toml(recipe))
    (path / "groups.json").write_text(json.dumps({"groups": [["discs"], ["squares"]]}))


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """A catalogue of four verticals."""
    out = tmp_path_factory.mktemp("shop") / "shop.lance"
    build_catalogue(four_verticals(), out)
    return Catalogue.open(out)


@pytest.fixture(scope="session")
def trained(four: Catalogue, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on discs and squares."""
    path = tmp_path_factory.mktemp("trained") / "run"
    train_old(four, recipe, path)
    return path


@pytest.fixture
def run_path(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, to grow."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="session")
def grown(four: Catalogue, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> GrowResult:
    """The run grown by hats with the default choices; only to be read."""
    path = tmp_path_factory.mktemp("grown") / "run"
    shutil.copytree(trained, path)
    return grow(path, four, "hats")


@pytest.fixture
def grown_path(grown: GrowResult, tmp_path: Path) -> Path:
    """A copy of the grown run."""
    shutil.copytree(grown.path.parent.parent, tmp_path / "grown-run")
    return tmp_path / "grown-run"
