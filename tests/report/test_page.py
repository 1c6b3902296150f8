import base64
import hashlib
import html.parser
import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import encoded
from tests.report import made_up
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.rows import SourceRow
from univert.report.page import write_report

VOID = {"meta", "link", "img", "input", "br"}
NASTY = '</script><script>alert("1")</script><img src=x onerror=alert(2)>\'"&$x$'


class Page(html.parser.HTMLParser):
    """What a browser would make of the report."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open, self.scripts, self.problems = [], [], [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.texts).split())
        self.ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def map_data(self):
        return json.loads(next(script for script in self.scripts if '"verticals"' in script))


def catalogue_of(folder, rows):
    """Rows of (vertical, product, brand)."""
    sources = []
    for number, (vertical, product, brand) in enumerate(rows):
        colour = ((37 * number) % 256, (91 * number) % 256, (151 * number) % 256)
        sources.append(
            SourceRow(
                origin=str(number), id=f"{number:04}", vertical=vertical, product=product, brand=brand,
                image=encoded(Image.new("RGB", (12, 12), colour)), split="test",
            )
        )  # fmt: skip
    build_catalogue(sources, folder / "catalogue", workers=1)
    return Catalogue.open(folder / "catalogue")


def vectors_for(catalogue, size=6):
    vectors = np.random.default_rng(0).normal(size=(len(catalogue), size)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def reported(path, content, catalogue, spaces=None):
    spaces = spaces or {"Learning targets": vectors_for(catalogue, 9), "Unified embeddings": vectors_for(catalogue)}
    write_report(path, content, catalogue, spaces)
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.problems
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    assert {link["href"][1:] for link in page.all("a")} <= set(page.ids)
    assert "None" not in page.text
    assert "nan" not in page.text.split()
    return page


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    rows = [
        (vertical, f"{vertical} {number}", "Acme" if image else None)
        for vertical in ("bags", "shoes")
        for number in range(5)
        for image in range(2)
    ]
    return catalogue_of(tmp_path_factory.mktemp("shop"), [*rows, ("shoes", None, None)])


@pytest.fixture(scope="module")
def report(shop, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    return path, reported(path, made_up.content(), shop)


def test_the_report_is_complete_in_itself(report):
    path, page = report
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert (attributes.get(name) or "#").startswith(("data:", "#")), (tag, attributes)
    assert all("alt" in image for image in page.all("img"))
    text = path.read_text(encoding="utf-8")
    assert "@import" not in text
    assert "url(" not in text
    assert len(text) < 500_000


def test_only_its_own_script_may_run(report):
    _, page = report
    (own,) = (script for script in page.scripts if "use strict" in script)
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    policy = next(one["content"] for one in page.all("meta") if one.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_every_part_says_what_was_found(report):
    _, page = report
    parts = {"summary", "comparison", "choice", "groups", "training", "map", "retrieval", "failures", "recipe"}
    assert parts | {"paired-1", "paired-2", "step-1"} <= set(page.ids)
    for words in (
        "routed by true vertical", "this model", "+30.0", "val MAP@R 50.0% at step 200", "loss 0.521 to 0.002",
        "size = 256", "12,000", "1 min 16 s", "torch 2.15",
        "Trained on 1,234 images of 321 products, 56 unlabelled images among them.", "leaving out 1 unlabelled image",
        "Each query searches its own vertical", "+6.0", "Ensemble was chosen on the validation split: better and",
        "Ensemble against Plain: taken.", "energy kept 0.973", "left out", "its learning targets are made of",
        "Group 1", "2 trials of at most 40", "+ hats", "with bags, shoes", "MAP@R \N{MINUS SIGN}7.0", "refused",
        "bags + shoes - hats: refused", "(a) Learning targets", "(b) Unified embeddings",
        "better than the specialist in 1 of 2 and worse in shoes (\N{MINUS SIGN}4.0)",
        "Below the untrained base network is 1 of 2 specialists: shoes (\N{MINUS SIGN}4.0). Beyond chance: shoes.",
    ):  # fmt: skip
        assert words in page.text, words


def test_every_paired_comparison_says_whose_it_is(report):
    _, page = report
    tabs = [one["data-tab"] for one in page.all("section") if one.get("id", "").startswith("paired-")]
    assert tabs == ["Against: Specialists", "Against: Base", "Specialists, against: Base"]


def test_only_what_could_have_been_right_is_framed_as_wrong(report):
    path, _ = report
    rankings = path.read_text(encoding="utf-8").split('<div class="ranking')[1:]
    assert any('"tile wrong"' in one for one in rankings)
    for one in rankings:  # one right image is in the gallery, so one rank at most was missed
        assert one.count('"tile wrong"') <= 1


def test_the_table_by_vertical_is_narrow_however_many_models_there_are(report):
    path, _ = report
    (table,) = re.findall('<table class="figures verticals".*?</table>', path.read_text(encoding="utf-8"), re.DOTALL)
    assert table.count("<td") == 2 * len(made_up.KEYS)
    assert "interval" not in table


def test_the_map_has_every_image_with_its_names(report, shop):
    _, page = report
    data = page.map_data()
    left, right = data["panels"]
    assert len(left["x"]) == len(right["y"]) == len(shop) == 21
    assert left != right
    assert data["verticals"] == ["bags", "shoes"]
    assert [data["verticals"][code] for code in data["vertical"]] == shop.column("vertical").tolist()
    names = [None if code < 0 else data["products"][code] for code in data["product"]]
    assert names == shop.column("product").tolist()
    assert data["picture"] == list(range(21))
    assert max(map(abs, right["x"] + right["y"])) == data["grid"]


def test_a_large_map_has_pictures_for_some_of_its_points(tmp_path, shop, monkeypatch):
    monkeypatch.setattr("univert.report.map_data.PICTURES", 6)
    data = reported(tmp_path / "report.html", made_up.content(), shop).map_data()
    assert len(data["picture"]) == len(shop)
    assert sorted(place for place in data["picture"] if place >= 0) == list(range(6))


def test_writing_again_gives_the_same_file(report, shop, tmp_path):
    path, _ = report
    reported(tmp_path / "again.html", made_up.content(), shop)
    assert (tmp_path / "again.html").read_bytes() == path.read_bytes()


def test_names_never_become_markup(tmp_path):
    verticals = [f"v{NASTY}", "w"]
    rows = [(vertical, f"p{NASTY}{vertical}", f"b{NASTY}") for vertical in verticals for _ in range(2)]
    content = made_up.content(
        compared=(
            made_up.model("base", 0.4, dict.fromkeys(verticals, 0.4)),
            made_up.model("unified", 0.5, dict.fromkeys(verticals, 0.5), title=f"t{NASTY}", note=NASTY),
        ),
        comparisons=(made_up.against("base", made_up.comparison(**{NASTY: (0.1, "better")}), title=NASTY),),
        choice=made_up.choice(titles=(NASTY, f"e{NASTY}"), reason=NASTY), ensemble=made_up.ensemble(NASTY),
        combination=made_up.combination((f"a{NASTY}", f"b{NASTY}", f"c{NASTY}")),
        results={
            **made_up.content().results, "recipe_toml": f"# {NASTY}\n[x]\n", "device": NASTY,
            "curves": {NASTY: {"step": [1], "loss": [1.0], "val_map_at_r": [], "best_step": None}},
        },
    )  # fmt: skip
    page = reported(tmp_path / "report.html", content, catalogue_of(tmp_path, rows))
    assert len(page.all("script")) == len(page.scripts) == 2
    assert all(image["src"].startswith("data:image/webp") for image in page.all("img"))
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.map_data()["verticals"] == sorted(verticals)
    assert NASTY in page.text


def test_one_vertical_reads_naturally_and_names_may_be_long(tmp_path):
    name, product = "a" * 200, "x" * 500
    rows = [(name, product, "b" * 300)] * 2 + [(name, "y", None)]
    content = made_up.content(compared=(made_up.model("unified", 0.5, {name: 0.5}),), comparisons=())
    vectors = np.eye(3, dtype=np.float32)
    page = reported(tmp_path / "report.html", content, catalogue_of(tmp_path, rows), {"Embeddings": vectors})
    assert f"In {name}, the right product comes first" in page.text
    assert product in page.text
    assert len(page.map_data()["panels"]) == 1


def test_a_run_that_decided_nothing(shop, tmp_path):
    alone = made_up.combination()
    content = made_up.content(
        comparisons=(), results={**made_up.content().results, "ensemble": {"learned_from": False}},
        choice=made_up.Choice(**{**vars(made_up.choice()), "steps": (), "figures": {}, "reason": ""}),
        combination=made_up.Combination(
            config=alone.config, groups=(("bags",), ("shoes",)), individual={"bags": None, "shoes": None}, path=("off",)
        ),
    )  # fmt: skip
    page = reported(tmp_path / "report.html", content, shop)
    for words in ("No verticals were tried together", "Ensemble was taken."):
        assert words in page.text
    assert "Learning targets that were tried The chosen model does not learn from them." in page.text
    for words in ("Paired, on the same queries", "Step by step", "Every combination that was tried"):
        assert words not in page.text


def test_without_figures_the_rest_is_shown_and_the_reason_said(shop, tmp_path):
    page = reported(tmp_path / "report.html", made_up.content(compared=(), comparisons=()), shop)
    assert {"summary", "choice", "groups", "training", "map", "recipe"} <= set(page.ids)
    assert not {"comparison", "retrieval", "failures"} & set(page.ids)
    for words in ("A model that was not measured", "No specialist for hats: one needs 2 products."):
        assert words in page.text
    assert "Evaluated on" not in page.text
