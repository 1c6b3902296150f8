"""`univert grow`, from a run and an index to an index that has one vertical more."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Univert
from tests.search.conftest import search_image
from tests.training.grow.conftest import four_verticals, train_old
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.models.embedder import Embedder
from univert.search.index import Index
from univert.search.indexing import index_catalogue
from univert.training.grow.lineage import deployed_model
from univert.training.recipe import Recipe

Grow = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def built(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue of four verticals; a run on two of them, and its index."""
    place = tmp_path_factory.mktemp("place")
    build_catalogue(four_verticals(), place / "shop.lance")
    shop = Catalogue.open(place / "shop.lance")
    train_old(shop, recipe, place / "run")
    model = Embedder.from_pretrained(place / "run" / "unified")
    index_catalogue(model, shop.select(vertical=["discs", "squares"]), place / "shop.index")
    return place


@pytest.fixture
def place(built: Path, tmp_path: Path) -> Path:
    """A copy, to grow."""
    shutil.copytree(built, tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture
def grow(place: Path, univert: Univert) -> Grow:
    def run(*options: str, index: str = "shop.index") -> tuple[int, str, str]:
        arguments = ("--vertical", "hats", "--index", place / index, *options)
        return univert("grow", place / "run", place / "shop.lance", *arguments)

    return run


def test_an_index_grows_with_its_run(place: Path, grow: Grow, published: list[Path]) -> None:
    old = Embedder.from_pretrained(place / "run" / "unified")
    status, out, err = grow()
    assert (status, err) == (0, "")
    for words in ("growing by hats, val split", "test split", "specialist before", "36 images added"):
        assert words in out
    assert published == [deployed_model(place / "run")]
    new = Embedder.from_pretrained(deployed_model(place / "run"))
    opened = Index.open(place / "shop.index")
    assert len(opened) == 108
    assert [opened.model_fingerprint, *opened.compatible_models] == [old.fingerprint, new.fingerprint]
    catalogue = Catalogue.open(place / "shop.lance")
    picture = catalogue.image_bytes([catalogue.column("id").tolist().index("hats-discs-0-0")])[0]
    hats = search_image(new, opened, picture, k=3, where={"vertical": "hats"})
    assert (hats[0].id, hats[0].distance) == ("hats-discs-0-0", pytest.approx(0, abs=1e-4))
    for model in (old, new):
        assert len(search_image(model, opened, picture, k=200)) == 108

    status, out, err = grow("--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["images_indexed"] == 0


def test_a_refusal_exits_with_1_and_leaves_the_index(place: Path, grow: Grow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("univert.training.grow.growing.refusal_of", lambda figures, limit: "discs lost 9.9 points")
    status, out, err = grow()
    assert (status, err) == (1, "univert: not published: discs lost 9.9 points; --force publishes all the same\n")
    assert "growing by hats" in out
    assert len(Index.open(place / "shop.index")) == 72
    assert deployed_model(place / "run") == place / "run" / "unified"


def test_an_index_of_another_run_is_refused_before_any_work(place: Path, grow: Grow) -> None:
    stranger = Embedder.from_pretrained(place / "run" / "unified")
    next(stranger.head.parameters()).data.mul_(1.01)
    index_catalogue(stranger, Catalogue.open(place / "shop.lance"), place / "other.index")
    for index, message in (("other.index", "which is none of"), ("no.index", "no such index")):
        status, out, err = grow(index=index)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert message in err
    assert not (place / "run" / "grown").exists()
