"""From a query log to triplets, on pictures of coloured things."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageFilter

from tests.curation.words import COLOURS, THINGS
from tests.data.pictures import encoded
from univert.core.errors import BadInputError
from univert.core.protocols import Images
from univert.curation.curate import CurateConfig, Curation, curate
from univert.curation.overlaid_text import default_fonts, write_over
from univert.curation.parts import Parts
from univert.curation.picture_rating import PICTURES, rate_pictures
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.decode import decode_rgb
from univert.data.rows import SourceRow
from univert.data.triplets import read_clean_triplets
from univert.report.funnel import report_curation

PRODUCTS = [f"{colour}-{thing}" for thing in THINGS for colour in COLOURS]
SHOWN = 3
"""Pictures of each product that the log names."""


def picture(product: str, number: int) -> Image.Image:
    """A thing in its colour, at another place and size in each."""
    colour, thing = product.split("-")
    rng = np.random.default_rng([number, PRODUCTS.index(product)])
    image = Image.new("RGB", (128, 112), "ivory")
    x, y, size = rng.integers(8, 30), rng.integers(8, 24), rng.integers(56, 76)
    box = (int(x), int(y), int(x + size), int(y + size))
    draw = ImageDraw.Draw(image)
    fill = {"golden": "goldenrod", "white": "lightgrey"}.get(colour, colour)
    if thing == "chair":
        draw.rectangle(box, fill, "black")
    elif thing == "lamp":
        draw.ellipse(box, fill, "black")
    elif thing == "table":
        draw.polygon([(box[0], box[3]), (box[2], box[3]), (box[0], box[1])], fill, "black")
    else:
        draw.ellipse(box, None, fill, 14)
    return image


class Thumbnails:
    """A model that sees the picture small, less what all have in common."""

    size = 8 * 8 * 3
    fingerprint = "thumbnails"

    def __init__(self, most_calls: int = 1_000) -> None:
        self.calls_left = most_calls

    def embed_catalogue(self, catalogue: Images, batch_size: int = 64) -> np.ndarray:
        if self.calls_left == 0:
            raise KeyboardInterrupt
        self.calls_left -= 1
        contents = catalogue.image_bytes(range(len(catalogue)))
        small = [np.asarray(decode_rgb(one).resize((8, 8)), np.float32).ravel() - 200 for one in contents]
        return np.array([one / np.linalg.norm(one) for one in small], np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shop, its names, pictures of which nothing is known, and a log."""
    folder = tmp_path_factory.mktemp("curate")
    shop = [
        SourceRow(
            origin="shop", id=f"{product}/{number}", image=encoded(picture(product, number)), product=product,
            vertical=product.split("-")[1], split=("train", "val")[place % 2],
        )
        for place, product in enumerate(PRODUCTS)
        for number in range(2)
    ]  # fmt: skip
    build_catalogue(shop, folder / "shop.lance")
    names = [["product", "name"], *([product, product.replace("-", " ")] for product in PRODUCTS)]
    (folder / "names.csv").write_text("\n".join(",".join(row) for row in names))
    found = {f"{product}-{number}": picture(product, 10 + number) for product in PRODUCTS for number in range(SHOWN)}
    found["blurred"] = found["red-chair-0"].filter(ImageFilter.GaussianBlur(4))
    rows = [
        SourceRow(origin="web", id=name, image=encoded(image), vertical="unknown", split="train")
        for name, image in found.items()
    ]
    rows.append(SourceRow(origin="web", id="again", image=encoded(found["red-chair-0"], "JPEG", quality=95),
                          vertical="unknown", split="train"))  # fmt: skip
    rows.append(SourceRow(origin="web", id="held-out", image=encoded(picture("red-chair", 99)), vertical="unknown",
                          split="test"))  # fmt: skip
    build_catalogue(rows, folder / "web.lance")
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log()))
    return folder


def log() -> list[dict[str, object]]:
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for product in PRODUCTS:
        colour, thing = product.split("-")
        right = [f"{product}-{number}" for number in range(SHOWN)]
        wrong = [f"{other}-0" for other in rng.permutation([one for one in PRODUCTS if one != product])[:2]]
        for query in (f"{colour} {thing}", f"{thing}s {colour}"):
            shown = [*right, *wrong]
            if product == "red-chair":
                shown = ["gone", *right, "again", "blurred", "held-out", *wrong]
            titles = {name: name.rsplit("-", 1)[0].replace("-", " ") for name in shown if "-" in name}
            results = [{"id": name, "title": titles.get(name)} for name in shown]
            rows.append({"query": query, "count": 3, "results": results})
        rows.append({"query": "weather tomorrow", "results": [f"{product}-0"]})
    return [*rows, {"query": "", "results": []}]


@pytest.fixture(scope="module")
def curation(folder: Path) -> Curation:
    return run(folder, folder / "out")


def run(
    folder: Path,
    out: Path,
    model: Thumbnails | None = None,
    *,
    log_name: str = "log.jsonl",
    images: str = "web.lance",
    **config: Any,
) -> Curation:
    return curate(
        folder / log_name, Catalogue.open(folder / images), out, model=model or Thumbnails(),
        names=folder / "names.csv", catalogue=Catalogue.open(folder / "shop.lance"),
        config=CurateConfig(precision=0.8, **config),
    )  # fmt: skip


def triplets(out: Path) -> list[dict[str, str]]:
    with (out / "triplets.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_triplets_are_of_one_thing_in_two_pictures_and_another(curation: Curation) -> None:
    found = triplets(curation.path)
    assert sum(curation.triplets.values()) == len(found) > len(PRODUCTS)
    assert set(curation.triplets) <= set(THINGS)
    right = [row["anchor"].rsplit("-", 1)[0] == row["positive"].rsplit("-", 1)[0] for row in found]
    same_thing = [row["negative"].split("-")[1] == row["vertical"] for row in found]
    false = [row["negative"].rsplit("-", 1)[0] == row["anchor"].rsplit("-", 1)[0] for row in found]
    assert (np.mean(right) > 0.9, np.mean(same_thing) > 0.95, any(false)) == (True, True, False)
    assert "held-out" not in {row[role] for row in found for role in ("anchor", "positive", "negative")}


def test_they_are_what_finetune_and_rate_take(curation: Curation) -> None:
    clean = read_clean_triplets(curation.path / "triplets.csv", curation.images)
    assert (len(clean), clean.report.rejected) == (sum(curation.triplets.values()), 0)
    assert clean.report.verticals == curation.triplets  # though the catalogue says that they are unknown
    assert len(clean.of(["chair"])) == curation.triplets["chair"]


def test_every_row_says_why_it_is_in_or_out(curation: Curation) -> None:
    queries = pq.read_table(sorted((curation.path / "queries").glob("*.parquet"))).to_pylist()
    assert len(queries) == len(log())
    assert "no query" in queries[-1]["problem"]
    assert {row["vertical"] for row in queries if row["query"] == "weather tomorrow"} == {None}
    rows = pq.read_table(sorted((curation.path / "ratings").glob("*.parquet"))).to_pylist()
    assert all(row["why"] for row in rows)
    stages = {row["id"]: row["stage"] for row in rows if row["id"] in ("gone", "again", "blurred")}
    assert stages == {"gone": "missing", "again": "repeated", "blurred": "pixels"}
    why = {row["id"]: row["why"] for row in rows}
    assert why["again"] == "nearly the same as 'red-chair-0', which comes before it"
    assert why["blurred"].startswith("blurred: ")


def test_the_report_counts_the_same(curation: Curation) -> None:
    counts = report_curation(curation)
    stages = {one["title"]: one["count"] for one in counts["stages"]}
    rows = pq.read_table(sorted((curation.path / "ratings").glob("*.parquet"))).to_pylist()
    assert stages["Queries in the log"] == stages["that can be read"] + 1 == len(log())
    assert stages["Pictures of these queries"] == len(rows)
    assert stages["that the query describes"] == sum(row["kept"] for row in rows)
    assert stages["Image triplets"] == len(triplets(curation.path))
    assert sum(counts["out"].values()) == len(rows) - stages["that the query describes"]
    page = (curation.path / "report.html").read_text()
    assert "blurred" in page
    assert "weather tomorrow" in page


def test_stopped_anywhere_it_goes_on_to_the_same_triplets(
    curation: Curation, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for calls in (0, 1):  # while pictures of the log are embedded, while those of the shop are
        with pytest.raises(KeyboardInterrupt):
            run(folder, tmp_path / "out", Thumbnails(calls))
        monkeypatch.setattr("univert.curation.curate.QueryParser", None)  # what is done is not done again
        monkeypatch.setattr("univert.curation.picture_rating.decode_rgb", None)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("univert.curation.curate.make_triplets", stop)
        run(folder, tmp_path / "out")
    monkeypatch.setattr("univert.curation.curate.ResultRating", None)
    assert run(folder, tmp_path / "out", Thumbnails(0)).triplets == curation.triplets
    assert triplets(tmp_path / "out") == triplets(curation.path)


def test_a_longer_log_or_another_choice_looks_at_no_picture_again(
    curation: Curation, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(curation.path, tmp_path / "out")
    (folder / "longer.jsonl").write_text((folder / "log.jsonl").read_text() + '{"query": "blue chair"}\n'.replace(
        "}", ', "results": ["blue-chair-0", "blue-chair-1"]}'))  # fmt: skip
    monkeypatch.setattr("univert.curation.picture_rating.decode_rgb", None)
    found = run(folder, tmp_path / "out", Thumbnails(0), log_name="longer.jsonl", match=0.5)
    assert sum(map(len, found.queries)) == len(log()) + 1
    (found.path / "triplets.csv").unlink()
    (found.path / "words" / "match.json").unlink()
    assert run(folder, tmp_path / "out", Thumbnails(0), log_name="longer.jsonl", match=0.5, seed=1).triplets
    assert triplets(tmp_path / "out") != triplets(curation.path)


def test_where_some_queries_have_no_results_all_images_are_searched(folder: Path, tmp_path: Path) -> None:
    rows = [{**row, "results": row.get("results") if place == 0 else None} for place, row in enumerate(log())]
    (folder / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = run(folder, tmp_path / "out", log_name="some.jsonl")
    assert len({row["id"] for part in found.ratings for row in part.to_pylist()}) > len(PRODUCTS)


def test_a_picture_whose_file_is_gone_is_out(folder: Path, tmp_path: Path) -> None:
    web = Catalogue.open(folder / "web.lance")
    names = web.column("id").tolist()
    for name, content in zip(names, web.image_bytes(range(len(web))), strict=True):
        (tmp_path / f"{name}.png").write_bytes(content)
    rows = [
        SourceRow(origin="web", id=name, path=tmp_path / f"{name}.png", split="train", vertical="unknown")
        for name in names
    ]
    build_catalogue(rows, tmp_path / "linked.lance", link=True)
    (tmp_path / "red-chair-0.png").unlink()
    found = run(folder, tmp_path / "out", images=str(tmp_path / "linked.lance"))
    why = {row["id"]: row["why"] for row in found.ratings.read(0).to_pylist()}
    assert why["red-chair-0"].startswith("cannot be read: ")
    assert found.triplets


def test_pictures_written_upon_are_out(tmp_path: Path) -> None:
    clean = [
        SourceRow(origin="shop", image=encoded(picture(product, number)), product=product, vertical="thing")
        for product in PRODUCTS
        for number in range(3)
    ]
    build_catalogue(clean, tmp_path / "clean.lance")
    rng, font = np.random.default_rng(0), default_fonts()[0]
    shown = [picture(product, 50) for product in PRODUCTS[::2]]
    written = [write_over(one, "tiled", font, rng) for one in shown]
    rows = [
        SourceRow(origin="web", id=f"{number:02}", image=encoded(one), vertical="unknown")
        for number, one in enumerate([*shown, *written])
    ]
    build_catalogue(rows, tmp_path / "web.lance")
    images = Catalogue.open(tmp_path / "web.lance")
    parts = Parts(tmp_path / "pictures", PICTURES, "")
    found = rate_pictures(images, np.arange(len(images)), parts, Catalogue.open(tmp_path / "clean.lance"))
    assert np.mean(found.good[: len(shown)]) > 0.9
    out = [why for why in found.why[len(shown) :] if why is not None]
    assert len(out) > 0.9 * len(written)
    assert all(why.startswith("text or a watermark lies over it") for why in out)


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_to_the_same_triplets(curation: Curation, folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", f"""
from pathlib import Path
from tests.curation.test_curate import run
run(Path({str(folder)!r}), Path({str(tmp_path / "out")!r}))
"""]  # fmt: skip
    for reached in ("queries", "pictures/000000.parquet", "vectors/vectors.npy", "words/config.json", "ratings"):
        process = subprocess.Popen(command)
        while process.poll() is None and not (tmp_path / "out" / reached).exists():
            time.sleep(0.001)
        process.kill()
        process.wait()
    subprocess.run(command, check=True)
    assert triplets(tmp_path / "out") == triplets(curation.path)


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_log_without_results_searches_the_images(folder: Path, tmp_path: Path) -> None:
    queries = dict.fromkeys(str(row["query"]) for row in log() if row["query"])
    (folder / "words.csv").write_text("query\n" + "\n".join(queries))
    found = run(folder, tmp_path / "out", log_name="words.csv")
    asked = {row["number"]: row["query"] for row in found.queries.read(0).to_pylist()}
    first = {asked[row["number"]]: row["id"] for row in found.ratings.read(0).to_pylist() if row["rank"] == 1}
    learned = [product.replace("-", " ") for product in PRODUCTS[::2]]  # of the train split: the tower has seen them
    right = [first[query].split("-")[0] == query.split()[0] for query in learned if query in first]
    assert np.mean(right) > 0.7
    assert triplets(found.path)


def test_bad_input_is_refused_with_the_fix(
    curation: Curation, folder: Path, tmp_path: Path, univert: Callable[..., tuple[int, str, str]]
) -> None:
    shutil.copytree(curation.path, tmp_path / "out")
    shop = Catalogue.open(folder / "shop.lance")
    with pytest.raises(BadInputError, match=r"no picture of .* is in .*shop.lance; ids must be those of the catalogue"):
        curate(folder / "log.jsonl", shop, tmp_path / "out", model=Thumbnails(), names=folder / "names.csv",
               catalogue=shop, config=CurateConfig(precision=0.8))  # fmt: skip
    with pytest.raises(BadInputError, match=r"nothing.csv: No such file or directory; give a file"):
        run(folder, tmp_path / "other", log_name="nothing.csv")
    status, _, error = univert("curate", "nothing.csv", folder / "web.lance", "--out", tmp_path / "o", "--model", "m",
                               "--names", folder / "names.csv")  # fmt: skip
    assert (status, "m" in error) == (2, True)
