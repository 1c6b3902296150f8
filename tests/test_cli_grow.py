"""`univert grow`, from a run and an index to an index that has one vertical more."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.test_cli import univert
from tests.training.grow.conftest import four_verticals, train_old
from univert.cli import app
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.models.embedder import Embedder
from univert.search.index import Index, search_image
from univert.search.indexing import index_catalogue
from univert.training.grow.lineage import deployed_model
from univert.training.recipe import Recipe


@pytest.fixture(scope="module")
def place(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue of four verticals; a run on two of them, and its index."""
    place = tmp_path_factory.mktemp("place")
    build_catalogue(four_verticals(), place / "shop.lance")
    shop = Catalogue.open(place / "shop.lance")
    train_old(shop, recipe, place / "run")
    model = Embedder.from_pretrained(place / "run" / "unified")
    index_catalogue(model, shop.select(vertical=["discs", "squares"]), place / "shop.index")
    return place


def test_help_has_an_example() -> None:
    result = CliRunner().invoke(app, ["grow", "--help"])
    assert result.exit_code == 0
    assert "Example: univert grow" in result.output


def test_an_index_grows_with_its_run(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, index, shop = tmp_path / "run", tmp_path / "shop.index", place / "shop.lance"
    shutil.copytree(place / "run", run)
    shutil.copytree(place / "shop.index", index)

    def grow(*options: str) -> tuple[int, str, str]:
        return univert(
            *("grow", run, shop, "--vertical", "hats", "--index", index, *options),
            monkeypatch=monkeypatch,
            capsys=capsys,
        )

    old = Embedder.from_pretrained(run / "unified")
    status, out, err = grow()
    assert (status, err) == (0, "")
    for words in ("growing by hats, val split", "test split", "specialist before", "36 images added"):
        assert words in out
    assert (deployed_model(run) / "model.onnx").is_file()
    new = Embedder.from_pretrained(deployed_model(run))
    opened = Index.open(index)
    assert len(opened) == 108
    assert [opened.model_fingerprint, *opened.compatible_models] == [old.fingerprint, new.fingerprint]
    catalogue = Catalogue.open(shop)
    row = catalogue.column("id").tolist().index("hats-discs-0-0")
    picture = catalogue.image_bytes([row])[0]
    hats = search_image(new, opened, picture, k=3, where={"vertical": "hats"})
    assert hats[0].id == "hats-discs-0-0"
    assert hats[0].distance == pytest.approx(0, abs=1e-4)
    for model in (old, new):
        assert len(search_image(model, opened, picture, k=200)) == 108

    status, out, err = grow("--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["images_indexed"] == 0
    assert len(Index.open(index)) == 108

    status, out, err = univert(
        *("grow", run, shop, "--vertical", "rings", "--index", index), monkeypatch=monkeypatch, capsys=capsys
    )
    assert status == 0
    third = Embedder.from_pretrained(deployed_model(run))
    opened = Index.open(index)
    assert opened.verticals == ["discs", "hats", "rings", "squares"]
    assert opened.compatible_models == [new.fingerprint, third.fingerprint]


def test_a_refusal_exits_with_1_and_leaves_the_index(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "univert.training.grow.growing.refusal_of", lambda figures, limit: "discs lost 9.9 points of R@1"
    )
    run, index = tmp_path / "run", tmp_path / "shop.index"
    shutil.copytree(place / "run", run)
    shutil.copytree(place / "shop.index", index)
    arguments = ("grow", run, place / "shop.lance", "--vertical", "hats", "--index", index)
    status, out, err = univert(*arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert status == 1
    assert "growing by hats" in out
    assert err == "univert: not published: discs lost 9.9 points of R@1; --force publishes all the same\n"
    assert len(Index.open(index)) == 72
    assert deployed_model(run) == run / "unified"
    status, out, err = univert(*arguments, "--force", monkeypatch=monkeypatch, capsys=capsys)
    assert (status, err) == (0, "")
    assert "36 images added" in out


def test_an_index_of_another_run_is_refused_before_any_work(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "run", run)
    shop = Catalogue.open(place / "shop.lance")
    stranger = Embedder.from_pretrained(run / "unified")
    next(stranger.head.parameters()).data.add_(1)
    index_catalogue(stranger, shop, tmp_path / "other.index")
    for index, message in ((tmp_path / "other.index", "which is none of"), (tmp_path / "no.index", "no such index")):
        status, out, err = univert(
            *("grow", run, place / "shop.lance", "--vertical", "hats", "--index", index),
            monkeypatch=monkeypatch,
            capsys=capsys,
        )
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert message in err
    assert not (run / "grown").exists()
