"""The reproduction of a benchmark, end to end on a miniature in the exact layout."""

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Univert
from univert.core.errors import BadInputError
from univert.data.catalogue import Catalogue
from univert.data.readers import BENCHMARKS
from univert.data.readers.benchmarks import Size
from univert.data.readers.cub200 import CUB200, read_cub200
from univert.losses.names import LOSSES, LossName
from univert.training.recipe import Recipe
from univert.training.reproduce import PROTOCOLS, Reproduction, reproduce


def draw(path: Path, colour: np.ndarray, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = rng.integers(-20, 20, (40, 50, 3))
    Image.fromarray((colour + noise).clip(0, 255).astype(np.uint8)).save(path)


def miniature_birds(root: Path) -> Path:
    """CUB-200-2011 with 12 of its species on either side of the split, 3 images each."""
    rng = np.random.default_rng(0)
    images, labels, classes = [], [], []
    for species in [*range(1, 13), *range(101, 113)]:
        name = f"{species:03}.Bird"
        classes.append(f"{species} {name}")
        colour = rng.integers(0, 255, 3)
        for picture in range(3):
            draw(root / "images" / name / f"{picture}.jpg", colour, rng)
            images.append(f"{len(images) + 1} {name}/{picture}.jpg")
            labels.append(f"{len(images)} {species}")
    for file, lines in (("images", images), ("image_class_labels", labels), ("classes", classes)):
        (root / f"{file}.txt").write_text("\n".join(lines) + "\n")
    return root


def miniature_shop(root: Path) -> Path:
    """In-shop with 12 items to train on and 6 to test on, 2 pictures each as queries and 2 in the gallery."""
    rng = np.random.default_rng(0)
    lines = []
    for item in range(18):
        colour = rng.integers(0, 255, 3)
        for picture in range(4):
            place = f"img/WOMEN/Dresses/id_{item:08}/{picture:02}_1_front.jpg"
            part = "train" if item < 12 else ("query", "gallery")[picture % 2]
            draw(root / "Img" / place, colour, rng)
            lines.append(f"{place} id_{item:08} {part}")
    (root / "Eval").mkdir()
    header = f"{len(lines)}\nimage_name item_id evaluation_status\n"
    (root / "Eval" / "list_eval_partition.txt").write_text(header + "\n".join(lines) + "\n")
    return root


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocols with a network that trains in a second."""

    def shrunk(make: Callable[..., Recipe]) -> Callable[..., Recipe]:
        def made(*args: object, **options: object) -> Recipe:
            recipe = make(*args, **options)
            model = dataclasses.replace(recipe.model, base_network="timm/test_efficientnet", image_size_px=32, size=8)
            loop = dataclasses.replace(recipe.specialists.loop, evaluations=2)
            specialists = dataclasses.replace(recipe.specialists, loop=loop)
            return dataclasses.replace(recipe, model=model, specialists=specialists)

        return made

    for name, make in PROTOCOLS.items():
        monkeypatch.setitem(PROTOCOLS, name, shrunk(make))


@pytest.mark.parametrize("make", PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize("loss", LOSSES)
def test_proxies_start_at_random_as_published(make: Callable[..., Recipe], loss: LossName) -> None:
    start = make(loss, 320).specialists.proxy_start
    assert start == ("random" if LOSSES[loss].proxies == "assigned" else "data")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("loss", "protocol", "published"), [("triplet", "proxies", 42.59), ("proxy-nca", "modern", 72.2)]
)
def test_a_benchmark_is_trained_on_and_measured(tmp_path: Path, loss: str, protocol: str, published: float) -> None:
    root = miniature_birds(tmp_path / "CUB_200_2011")

    def run() -> Reproduction:
        return reproduce(
            "cub200", root, tmp_path / "run", loss=loss, protocol=protocol, pretrained=False, epochs=2, verify=False
        )

    result = run()
    assert set(result.figures()) == {"R@1", "R@2", "R@4", "R@8", "NMI"}
    assert result.published["R@1"] == published
    assert result.evaluation.merged.products == 12
    stored = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert stored["figures"] == result.figures()
    weights = tmp_path / "run" / "model" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert run().figures() == result.figures()
    assert weights.stat().st_mtime_ns == before


@pytest.mark.usefixtures("small")
def test_queries_of_in_shop_search_its_gallery_and_another_data_set_is_not_taken_for_it(tmp_path: Path) -> None:
    options = {"pretrained": False, "epochs": 1, "verify": False}
    shop, birds = miniature_shop(tmp_path / "shop"), miniature_birds(tmp_path / "CUB_200_2011")
    result = reproduce("inshop", shop, tmp_path / "run", **options)  # type: ignore[arg-type]
    assert set(result.figures()) == {"R@1", "R@10", "R@20", "R@30"}
    assert result.evaluation.merged.queries == 12
    other = reproduce("cub200", birds, tmp_path / "run", **options)  # type: ignore[arg-type]
    assert other.evaluation.merged.products == 12
    split = Catalogue.open(tmp_path / "run" / "catalogue.lance").column("split")
    reproduce("cub200", birds, tmp_path / "run", seed=1, **options)  # type: ignore[arg-type]
    assert (Catalogue.open(tmp_path / "run" / "catalogue.lance").column("split") != split).any()


def test_missing_weights_are_said_before_anything_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNIVERT_INCEPTION_V2_WEIGHTS", raising=False)
    with pytest.raises(BadInputError, match="UNIVERT_INCEPTION_V2_WEIGHTS"):
        reproduce("cub200", miniature_birds(tmp_path / "CUB_200_2011"), tmp_path / "run", verify=False)
    assert not (tmp_path / "run").exists()


def test_what_does_not_exist_is_named(tmp_path: Path) -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("birds", {}, "dataset must be one of cub200"),
        ("sop", {"loss": "tripplet"}, "loss must be one of triplet"),
        ("sop", {"protocol": "old"}, "protocol must be one of proxies, modern; got 'old'"),
        ("cars196", {"pretrained": False}, "cars"),
    ]
    for dataset, options, message in cases:
        with pytest.raises(BadInputError, match=message):
            reproduce(dataset, tmp_path / "nowhere", tmp_path / "run", **options)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("content", "problem"), [(None, "missing"), (b"\xff\xd8 cut", "cannot enter")])
def test_a_picture_that_is_missing_or_damaged_can_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, univert: Univert, content: bytes, problem: str
) -> None:
    root = miniature_birds(tmp_path / "CUB_200_2011")
    picture = root / "images" / "001.Bird" / "0.jpg"
    picture.unlink()
    if content is not None:
        picture.write_bytes(content)
    sizes = {"cub200 train": Size(images=36, products=12), "cub200 test": Size(images=36, products=12)}
    whole = dataclasses.replace(CUB200, sizes=sizes)
    monkeypatch.setitem(BENCHMARKS, "cub200", (whole, partial(read_cub200, benchmark=whole)))
    command = ["reproduce", "cub200", "--root", root, "--out", tmp_path / "run"]
    command += ["--loss", "triplet", "--no-pretrained", "--epochs", "1"]
    status, _, said = univert(*command)
    assert status == 2
    assert problem in said
    assert "--no-verify" in said
    assert univert(*command, "--no-verify")[0] == 0
    rejected = tmp_path / "run" / "catalogue.lance" / "rejected.csv"
    assert len(rejected.read_text().splitlines()) == 2
    assert len(Catalogue.open(rejected.parent)) == 71
