import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from tests.conftest import Univert
from tests.drawn import drawn_rows
from univert.cli import app
from univert.core.config import config_to_toml
from univert.training.recipe import Recipe


def commands(group: Any, *path: str) -> Iterator[list[str]]:
    """Every command below a group, those of groups within it included."""
    for name, command in group.commands.items():
        yield from commands(command, *path, name) if hasattr(command, "commands") else [[*path, name]]


@pytest.mark.parametrize("command", list(commands(get_command(app))), ids=" ".join)
def test_help_has_an_example(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Example: univert" in result.output


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn catalogue as a folder tree."""
    root = tmp_path_factory.mktemp("photos")
    for row in drawn_rows():
        folder = root / row.vertical / (row.product or "")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{row.id}.png").write_bytes(row.image)
    return root


def test_a_command_into_a_pipe_says_how_far_it_is(
    photos: Path, tmp_path: Path, univert: Univert, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("univert.core.terminal._SECONDS_A_LINE", 0.0)
    status, _, err = univert("catalogue", "build", photos, tmp_path / "shop.lance")
    assert (status, "Building the catalogue: " in err) == (0, True)


@pytest.mark.usefixtures("published")
def test_from_photos_to_a_search(photos: Path, recipe: Recipe, tmp_path: Path, univert: Univert) -> None:
    def run(*arguments: object) -> str:
        status, out, err = univert(*arguments)
        assert (status, err) == (0, "")
        return out

    shop, model, index = tmp_path / "shop.lance", tmp_path / "run" / "unified", tmp_path / "shop.index"
    recipe_file = tmp_path / "recipe.toml"
    recipe_file.write_text(config_to_toml(recipe))
    query = next(photos.rglob("*.png"))

    assert "72" in run("catalogue", "build", photos, shop)
    assert json.loads(run("catalogue", "info", shop, "--json"))["images"] == 72
    assert "discs" in run("catalogue", "info", shop)
    few = ("--set", "evaluation.baselines=[]", "--set", 'unify.members=["specialists"]')
    out = run("train", shop, "--recipe", recipe_file, "--out", model.parent, *few)
    assert "Untrained base network" in out
    assert str(model) in out
    begun = (model.parent / "recipe.toml").read_text()
    run("train", shop, "--out", model.parent)  # a run goes on with the choices it was begun with
    assert (model.parent / "recipe.toml").read_text() == begun
    assert "merged" in run("evaluate", model, shop, "--split", "all")
    measured = json.loads(run("evaluate", model, shop, "--split", "all", "--vertical", "discs", "--json"))
    assert list(measured["verticals"]) == ["discs"]
    assert "72 images" in run("index", model, shop, index)
    hits = json.loads(run("search", model, index, query, "--k", "3", "--json"))
    assert len(hits) == 3
    assert hits[0]["distance"] == pytest.approx(0, abs=1e-4)
    squares = json.loads(run("search", model, index, query, "--vertical", "squares", "--json"))
    assert {hit["vertical"] for hit in squares} == {"squares"}
    assert "pictures" in run("search", model, index, query, "--out", tmp_path / "found.html")
    assert "data:image" in (tmp_path / "found.html").read_text()
    run("embed", model, query, query, "--out", tmp_path / "v.npy")
    assert np.load(tmp_path / "v.npy").shape == (2, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere"], "nowhere"),
        (["search", "nowhere", "nowhere", "nowhere.png"], "nowhere"),
        (["catalogue", "build", "nowhere", "out"], "nowhere"),
        (["train", "nowhere", "--set", "unify.aligned=false"], "did you mean unify.align?"),
        (["train", "nowhere", "--set", 'unify.members=["joints"]'], "a member is `specialists`"),
        (["train", "nowhere", "--recipe", "nowhere.toml"], "nowhere.toml: no such recipe file"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, univert: Univert
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = univert(*arguments)
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, univert: Univert) -> None:
    def interrupt(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("univert.main_job.train", interrupt)
    status, _, err = univert("train", "x")
    assert status == 130
    assert "run the same command again" in err
