"""The tool that makes query logs whose truth is known."""

from __future__ import annotations

import io
import json
import random
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import build_query_log
from query_log import held_out, pictures, texts
from univert.data.names import ProductName, read_names
from univert.data.readers import open_source
from univert.data.rows import SourceRow
from univert.data.sample import NAMES_PATH


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_query_log, "_AT_ONCE", 7)
        build_query_log.main([str(out), "--queries", "24"])
    return out


@pytest.fixture(scope="module")
def names() -> list[ProductName]:
    return list(read_names(NAMES_PATH))


def test_every_query_returns_thirty_pictures_that_are_there(log: Path) -> None:
    rows = pq.read_table(log / "log.parquet").to_pylist()
    there = pq.read_table(log / "pictures.parquet", columns=["id", "of", "change", "vertical"]).to_pylist()
    known = {row["id"]: row for row in there}
    assert len(known) == len(there)
    truth = pq.read_table(log / "truth.parquet").to_pylist()
    assert [row["query"] for row in rows] == [row["query"] for row in truth]
    assert len(rows) == 24
    for row, meant in zip(rows, truth, strict=True):
        assert [shown["rank"] for shown in row["results"]] == list(range(1, 31))
        assert len({shown["id"] for shown in row["results"]}) == 30
        for shown, what in zip(row["results"], meant["results"], strict=True):
            picture = known[shown["id"]]
            assert picture["change"] == (what if what in pictures.CHANGES else None)
            if meant["product"]:
                assert (picture["vertical"] == meant["vertical"]) == (what != "other vertical")


def test_counts_follow_zipf_and_a_third_belongs_to_no_vertical(log: Path) -> None:
    counts = pq.read_table(log / "log.parquet")["count"].to_pylist()
    assert counts == sorted(counts, reverse=True)
    assert (counts[0], counts[-1]) == (24, 1)
    rng = random.Random(0)
    typist = texts.Typist(read_names(NAMES_PATH), dict.fromkeys({n.product for n in read_names(NAMES_PATH)}, "scopia"))
    kinds = [typist.type(rng).kind for _ in range(1000)]
    assert 0.28 < 1 - kinds.count("product") / 1000 < 0.39
    assert kinds.count("hard") > 10


def test_a_log_follows_from_its_seed_whatever_its_length(log: Path, tmp_path: Path) -> None:
    build_query_log.main([str(tmp_path / "again"), "--queries", "10"])
    again, first = (pq.read_table(folder / "log.parquet").slice(0, 10) for folder in (tmp_path / "again", log))
    assert again.drop_columns("count").equals(first.drop_columns("count"))
    build_query_log.main([str(tmp_path / "other"), "--queries", "10", "--seed", "1"])
    assert (
        not pq.read_table(tmp_path / "other" / "log.parquet").drop_columns("count").equals(first.drop_columns("count"))
    )


def test_pictures_are_a_source_of_a_catalogue(log: Path) -> None:
    rows = list(open_source(log / "pictures.parquet"))
    assert all(isinstance(row, SourceRow) and row.image and row.vertical for row in rows)


def test_what_is_left_out_is_not_in_the_known_names(log: Path, names: list[ProductName]) -> None:
    told = json.loads((log / "truth.json").read_text())["held_out"]
    known = list(read_names(log / "names-known.parquet"))
    assert len(told["languages"]) == 2
    assert not {name.language for name in known} & set(told["languages"])
    assert not {name.product for name in known} & set(told["products"])
    assert 0.2 < len(told["products"]) / len({name.product for name in names}) < 0.3
    assert len(known) == sum(
        name.language not in told["languages"] and name.product not in told["products"] for name in names
    )
    for row in pq.read_table(log / "truth.parquet").to_pylist():
        assert row["held_out"] == (
            row["product"] is not None and (row["language"] in told["languages"] or row["product"] in told["products"])
        )


def test_the_choice_of_what_is_left_out_heeds_no_order_and_keeps_finishes_together(names: list[ProductName]) -> None:
    chosen = held_out.hold_out(names)
    assert held_out.hold_out(reversed(names)) == chosen
    products = {name.product for name in names}
    for product in products:
        assert (product in chosen.products) == (held_out.model_of(product, products) in chosen.products)


@pytest.mark.parametrize("kind", list(pictures.CHANGES))
def test_copies_differ_as_their_kind_says(kind: str) -> None:
    rng = np.random.default_rng(0)
    pixels = np.kron(rng.integers(40, 255, (12, 12, 3), dtype=np.uint8), np.ones((20, 20, 1), np.uint8))
    picture = Image.fromarray(pixels)
    made = pictures.CHANGES[kind](picture, 0.5)
    assert made == pictures.CHANGES[kind](picture, 0.5)
    with Image.open(io.BytesIO(made)) as file:
        size, copy = file.size, np.asarray(file.convert("RGB").resize((240, 240)), float)
    off = np.abs(copy - pixels).mean()
    assert (max(size) < 50) == (kind == "small")
    assert (copy.mean() < 50) == (kind == "dark")
    assert off > 1
    if kind == "overcompressed":
        assert len(made) < len(pictures.encode(picture, 80)) / 2


@pytest.mark.parametrize(("word", "many"), [("chair", "chairs"), ("box", "boxes"), ("body", "bodies"), ("toy", "toys")])
def test_plurals(word: str, many: str) -> None:
    assert texts.plural(word) == many


def test_a_slip_changes_one_word_a_little() -> None:
    rng = random.Random(0)
    for _ in range(200):
        typed = texts.mistype("blue armchair", rng)
        assert typed.startswith("blue ")
        assert abs(len(typed) - 13) <= 1
    assert texts.mistype("a cup", rng) == "a cup"
