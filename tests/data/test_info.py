import dataclasses
import io

import pytest
from rich.console import Console

from tests.data.pictures import png
from univert.core.config import to_plain
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.info import CatalogueInfo, catalogue_info, render
from univert.data.rows import SourceRow

PICTURE = png()
"""Different bytes after it are different files."""


def images(vertical: str, product: str | None, count: int, split: str) -> list[SourceRow]:
    return [
        SourceRow(
            origin="here",
            id=f"{vertical}/{product}/{split}/{n}",
            image=PICTURE + f"{vertical} {product} {n}".encode(),
            vertical=vertical,
            product=product and f"{vertical}-{product}",
            split=split,
        )
        for n in range(count)
    ]


def healthy(vertical: str) -> list[SourceRow]:
    """A vertical that nothing is wrong with."""
    shares = (("train", 12), ("val", 10), ("test", 10))
    return [r for split, many in shares for n in range(many) for r in images(vertical, f"{split}{n}", 2, split)]


def info_of(rows: list[SourceRow], folder) -> CatalogueInfo:
    build_catalogue(rows, folder / "cat", overwrite=True)
    return catalogue_info(Catalogue.open(folder / "cat"))


def test_counts(tmp_path):
    rows = [*images("bags", "a", 3, "train"), *images("bags", "b", 1, "test"), *images("bags", None, 4, "train")]
    info = info_of(rows + healthy("shoes"), tmp_path)
    assert (info.images, info.products, info.unlabelled, info.linked) == (8 + 64, 2 + 32, 4, 0)
    bags, shoes = info.verticals
    assert (bags.name, bags.images, bags.products, bags.unlabelled) == ("bags", 8, 2, 4)
    assert (bags.images_a_product, bags.single_image_products) == (2.0, 1)
    train = bags.splits["train"]
    assert (train.images, train.products, train.unlabelled, train.paired_products) == (7, 1, 4, 1)
    assert bags.splits["val"].images == 0
    assert list(shoes.splits) == ["train", "val", "test"]
    assert to_plain(info)["verticals"][1]["splits"]["test"]["products"] == 10
    assert sum(split.images for vertical in info.verticals for split in vertical.splits.values()) == info.images


def test_a_healthy_catalogue_has_no_warnings(tmp_path):
    assert info_of(healthy("shoes") + healthy("bags"), tmp_path).warnings == []


@pytest.mark.parametrize(
    ("extra", "warning"),
    [
        (images("hats", "a", 5, "train"), "no specialist can be trained for hats: "),
        (images("shoes", "lonely", 1, "train"), "products with one image only: 1, in shoes (1);"),
        (
            [r for n in range(12) for r in images("hats", str(n), 2, "train")],
            "test is too small for evaluation: hats (0)",
        ),
        (
            [r for n in range(9) for r in images("hats", f"v{n}", 2, "val")],
            "val is too small for the choice of steps, groups and models: hats (9) have fewer than 10 products",
        ),
        (images("shoes", None, 3, "val"), "unlabelled images in val or test: 3;"),
        (images("hats", "a", 2, "train"), "extreme imbalance: shoes has 32 times the images of hats (64 to 2);"),
    ],
)
def test_what_hurts_is_flagged_once_with_a_remedy(tmp_path, extra, warning):
    found = [text for text in info_of(healthy("shoes") + extra, tmp_path).warnings if text.startswith(warning)]
    assert len(found) == 1
    assert "; " in found[0]


def test_what_can_hardly_be_meant_is_flagged_too(tmp_path):
    twins = [dataclasses.replace(row, image=PICTURE) for row in images("hats", "a", 2, "train")]
    twins[0] = dataclasses.replace(twins[0], product="nan")
    found = "\n".join(info_of(twins, tmp_path).warnings)
    assert "stand for a missing value: 'nan', on 1 image; leave the field empty" in found
    assert "under several products: 1 such (hats/a/train/1 in 'hats-a', hats/a/train/0 in 'nan')" in found


def test_render(tmp_path):
    info = info_of(healthy("shoes [red]") + images("hats", "a", 3, "train"), tmp_path)
    console = Console(width=80, file=io.StringIO())
    render(info, console)
    text = console.file.getvalue()
    assert "shoes [red]" in text
    assert text.count("warning: ") == len(info.warnings) >= 3
    (total,) = [line for line in text.splitlines() if line.strip().startswith("all")]
    assert total.split() == ["all", "67", "33", "0", "2.0", "27", "(13)", "20", "(10)", "20", "(10)"]
    assert max(map(len, text.splitlines())) <= 80
