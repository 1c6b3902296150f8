"""`univert ratings` from the command line, and what `univert rate` refuses before it serves."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import Univert
from univert.data.catalogue import Catalogue
from univert.data.ratings import Answer, Ratings
from univert.data.triplets import read_clean_triplets

TRIPLETS = [("discs-0-0", "discs-0-1", "discs-4-0"), ("squares-4-0", "squares-4-2", "squares-0-1")]


@pytest.fixture
def rated(tmp_path: Path) -> Path:
    """Two triplets and a gold question, rated by two who agree and one who gets the gold wrong."""
    path = tmp_path / "rated"
    with Ratings(path, create=True) as ratings:
        ratings.choose(raters=2, gold_share=0.1)
        ratings.add([(*row, row[0].partition("-")[0]) for row in TRIPLETS])
        ratings.add([(f"{n}a", f"{n}p", f"{n}n", "discs") for n in range(5)], gold=("no", "no"))
        for rater, (same, gold) in {"ann": ("yes", "no"), "bob": ("yes", "no"), "eve": ("no", "yes")}.items():
            ratings.put(
                Answer(triplet=n, rater=rater, same="no" if n == 2 else word, different="yes" if n < 3 else word,
                       seconds=1.0, time_s=0.0)
                for n, word in [(1, same), (2, same), *((n, gold) for n in range(3, 8))]
            )  # fmt: skip
    return path


def test_summary_says_who_was_set_aside_and_why(univert: Univert, rated: Path) -> None:
    code, out, _ = univert("ratings", "summary", rated)
    assert code == 0
    assert "set aside: 0 of 10 gold questions right, below 70%" in out
    code, out, _ = univert("ratings", "summary", rated, "--json")
    found = json.loads(out)
    assert (found["triplets"], found["rated"], found["clean"]) == (2, 2, 1)
    assert {one["name"]: one["gold_right"] for one in found["raters"]} == {"ann": 1, "bob": 1, "eve": 0}


def test_clean_triplets_are_those_finetune_takes(
    univert: Univert, rated: Path, tmp_path: Path, catalogue: Catalogue
) -> None:
    out_path = tmp_path / "clean.csv"
    code, out, err = univert("ratings", "clean", rated, out_path)
    assert (code, out) == (0, "1 clean triplets of 2 rated, 2 in all\n")
    assert "set aside: eve" in err
    assert len(read_clean_triplets(out_path, catalogue)) == 1
    assert univert("ratings", "clean", rated, out_path)[0] == 2
    with Ratings(rated) as ratings:
        while ratings.undo("bob"):
            pass
    code, _, err = univert("ratings", "clean", rated, out_path, "--overwrite")
    assert code == 1
    assert "no triplet is clean" in err


def test_export_and_import(univert: Univert, rated: Path, tmp_path: Path) -> None:
    assert univert("ratings", "export", rated, tmp_path / "answers.csv")[0] == 0
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 22
    code, _, err = univert("ratings", "export", rated, tmp_path / "tasks.json")
    assert code == 2
    assert "--pictures" in err
    shown = ("--pictures", "https://shop.example/{id}.jpg")
    assert univert("ratings", "export", rated, tmp_path / "tasks.json", *shown)[0] == 0
    assert ElementTree.parse(tmp_path / "tasks.xml").getroot().tag == "View"
    code, out, _ = univert("ratings", "import", rated, tmp_path / "tasks.json", "--json")
    assert (code, json.loads(out)) == (0, {"answers": 21, "left_out": 0})
    assert univert("ratings", "export", rated, tmp_path / "answers.txt")[0] == 2
    assert "no such file of ratings" in univert("ratings", "summary", tmp_path / "none")[2]


def test_rate_refuses_bad_input_before_it_serves(univert: Univert, tmp_path: Path, catalogue: Catalogue) -> None:
    path, keys = tmp_path / "triplets.csv", tmp_path / "keys"
    path.write_text("anchor,positive,negative\ndiscs-0-0,discs-0-1,discs-0-2\n")
    keys.write_text("# raters\nann:secret\n")
    code, _, err = univert("rate", path, catalogue.path)
    assert code == 2
    assert "1 x negative of the same product" in err
    assert not path.with_suffix(".ratings").exists()
    code, _, err = univert("rate", path, catalogue.path, "--keys", keys)
    assert code == 2
    assert "key 1 is not a line that `univert key NAME` printed" in err
