"""Product pictures and the items of scenes, trained on and measured together."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Univert
from tests.data.pictures import encoded
from tests.drawn import drawn_rows
from tests.training.test_stages import short
from univert.core.errors import BadInputError
from univert.core.run import Run
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.decode import decode_rgb
from univert.data.rows import Item, SourceRow
from univert.detection.engine import FoundItem
from univert.detection.output import PhotoItems, as_rows
from univert.main_job import TrainResult, train
from univert.metrics.ranking import recall_at_k
from univert.report.page import report_run
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.unify import images_to_learn_from

CORNERS = ((3.0, 4.0), (40.0, 20.0))


def photo(pictures: list[bytes]) -> bytes:
    canvas = Image.new("RGB", (80, 60), (200, 190, 170))
    for content, corner in zip(pictures, CORNERS, strict=False):
        canvas.paste(decode_rgb(content), (int(corner[0]), int(corner[1])))
    return encoded(canvas)


def drawn_photos() -> Iterator[SourceRow]:
    """Two photos of every two products of one split."""
    for picture, split in product(("-0", "-1"), ("train", "val", "test")):
        rows = [row for row in drawn_rows() if str(row.id).endswith(picture) and row.split == split]
        for pair in zip(rows[::2], rows[1::2], strict=True):
            image = photo([row.image for row in pair if row.image is not None])
            items = tuple(
                Item(box_xyxy_px=(x, y, x + 32, y + 32), vertical=row.vertical, product=row.product)
                for row, (x, y) in zip(pair, CORNERS, strict=True)
            )
            name = f"photo-{pair[0].id}"
            yield SourceRow(origin=name, id=name, image=image, split=split, source="photo", items=items)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """Product pictures, photos, and what a detector found in one more photo."""
    folder = tmp_path_factory.mktemp("home")
    path = folder / "room.png"
    path.write_bytes(photo([row.image for row in drawn_rows() if row.image][:2]))
    found = [
        FoundItem(box_xyxy_px=(*corner, 70.0, 55.0), vertical="discs", score=0.9, vertical_score=0.8)
        for corner in CORNERS
    ]
    photos = [PhotoItems(path=path, size=(80, 60), items=found), PhotoItems(path=path, size=(80, 60), items=[])]
    rows = (replace(row, source="picture") for row in drawn_rows())
    build_catalogue(chain(rows, drawn_photos(), as_rows(photos)), folder / "home.lance")
    return Catalogue.open(folder / "home.lance")


@pytest.fixture(scope="module")
def trained(home: Catalogue, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(home, tmp_path_factory.mktemp("run"), short(recipe, "joint_triplet"), report=False)


def test_items_look_for_product_pictures(home: Catalogue, trained: TrainResult) -> None:
    test = home.select(split="test")
    vectors, products, asks = trained.model.embed_catalogue(test), test.product_labels(), test.in_scene
    expected = recall_at_k(
        vectors[asks], products[asks], gallery_vectors=vectors[~asks], gallery_labels=products[~asks]
    )
    merged = trained.finished.compared[-1].evaluation.merged
    assert merged.queries == asks.sum() == 12
    assert {k: interval.value for k, interval in merged.recall_at.items()} == pytest.approx(expected)
    assert merged.nmi is None
    against_specialists = trained.finished.models.choice.against_specialists
    assert against_specialists is not None
    assert against_specialists.merged["recall_at_1"].queries == home.select(split="val").in_scene.sum()


def test_what_a_detector_found_is_learned_from_without_a_product(home: Catalogue, trained: TrainResult) -> None:
    context = trained.finished.context
    learned = images_to_learn_from(context, context.recipe.unify)
    catalogue = context.images.catalogue
    found = np.flatnonzero([str(name).startswith(str(home.path.parent)) for name in catalogue.column("id")])
    assert len(found) == 2
    assert set(found) <= set(learned)
    assert set(context.images.products[found]) == {-1}
    assert set(catalogue.column("source")[found]) == {"photo"}


def test_without_items_that_have_products_each_picture_asks_all_others(
    home: Catalogue, recipe: Recipe, tmp_path: Path
) -> None:
    train_only = home.select(split="train")
    context = RunContext(Run(tmp_path), train_only, recipe)
    unlabelled = np.flatnonzero(~train_only.in_scene | (context.images.products < 0))
    assert context.images.asking(unlabelled) is None
    assert context.images.asking(np.arange(len(train_only))) is not None


def test_the_report_shows_items_and_the_pictures_they_found(trained: TrainResult) -> None:
    report_run(trained.finished)
    page = (trained.path / "report.html").read_text()
    assert "Every item of a scene whose product has pictures is a query" in page
    assert "12 queries" in page


def test_evaluate_asks_likewise(home: Catalogue, trained: TrainResult, univert: Univert) -> None:
    status, shown, _ = univert("evaluate", trained.model_path, home.path, "--json")
    assert status == 0
    merged = trained.finished.compared[-1].evaluation.merged
    assert json.loads(shown)["merged"]["recall_at"]["1"]["value"] == pytest.approx(merged.recall_at[1].value)
    assert json.loads(shown)["merged"]["queries"] == 12


def test_verticals_divided_by_source(home: Catalogue, recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(short(recipe), specialists=replace(recipe.specialists, by_source=True))
    result = train(home, tmp_path, recipe, report=False)
    names = ["discs (photo)", "discs (picture)", "squares (photo)", "squares (picture)"]
    assert result.finished.context.images.vertical_names == names
    assert len(list((tmp_path / "specialists").iterdir())) == 4
    rows = {row["key"]: row["evaluation"] for row in result.results["rows"]}
    assert sorted(rows["specialists"]["verticals"]) == names
    assert sorted(rows["unified"]["verticals"]) == ["discs", "squares"]
    assert rows["unified"]["merged"]["queries"] == 12


def test_a_vertical_whose_source_has_too_few_labels_stays_whole(recipe: Recipe, tmp_path: Path) -> None:
    rows = [
        replace(row, source="photo" if str(row.id)[:9] in ("squares-0", "squares-4") else "picture")
        for row in drawn_rows()
    ]
    build_catalogue(rows, tmp_path / "a.lance")
    recipe = replace(recipe, specialists=replace(recipe.specialists, by_source=True))
    images = RunContext(Run(tmp_path), Catalogue.open(tmp_path / "a.lance"), recipe).images
    assert images.vertical_names == ["discs", "squares (photo)", "squares (picture)"]
    assert images.notes[0].startswith("not divided by source: discs.")
    build_catalogue([replace(row, source="picture") for row in rows], tmp_path / "b.lance")
    with pytest.raises(BadInputError, match="no vertical has two sources with labels enough"):
        RunContext(Run(tmp_path), Catalogue.open(tmp_path / "b.lance"), recipe)
