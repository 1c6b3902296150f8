import base64
import hashlib
import html.parser
import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.report import decisions
from tests.report.comparison import full_comparison, results, row
from univert.core.errors import BadInputError
from univert.core.terminal import table_text
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.rows import SourceRow
from univert.report.console import choice_table
from univert.report.page import write_report
from univert.report.retrieval_grids import MOST_VERTICALS, Columns, retrieval_groups

VOID = {"meta", "link", "img", "input", "br"}
NASTY = '</script><script>alert("1")</script><img src=x onerror=alert(2)>\'"&'


class Page(html.parser.HTMLParser):
    """What a browser would make of the report."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open, self.scripts, self.problems = [], [], [], [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.texts).split())

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


def picture(number):
    image = Image.new("RGB", (12, 12), ((37 * number) % 256, (91 * number) % 256, (151 * number) % 256))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def catalogue_of(folder, rows):
    """Rows of (vertical, product, brand)."""
    build_catalogue(
        [
            SourceRow(
                origin=str(number),
                id=f"{number:04}",
                vertical=vertical,
                product=product,
                brand=brand,
                image=picture(number),
                split="test",
            )
            for number, (vertical, product, brand) in enumerate(rows)
        ],
        folder / "catalogue",
        workers=1,
    )
    return Catalogue.open(folder / "catalogue")


def vectors_for(catalogue, size=6):
    vectors = np.random.default_rng(0).normal(size=(len(catalogue), size)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def reported(path, content, catalogue, vectors=None, **options):
    write_report(path, content, catalogue, vectors_for(catalogue) if vectors is None else vectors, **options)
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.problems
    assert not page.open
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
    versions = {"versions": {"torch": "2.15"}, "device": "cpu", "seeds": [0, 1], "note": None}
    return path, reported(path, results(full_comparison(), **versions), shop)


def test_the_report_is_complete_in_itself(report):
    path, page = report
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert (attributes.get(name) or "#").startswith(("data:", "#")), (tag, attributes)
    text = path.read_text(encoding="utf-8")
    assert "@import" not in text
    assert "url(" not in text
    assert len(text) < 400_000


def test_only_its_own_script_may_run(report):
    _, page = report
    (own,) = (script for script in page.scripts if "use strict" in script)
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    policy = next(one["content"] for one in page.all("meta") if one.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_every_part_is_there_and_named(report):
    _, page = report
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"summary", "comparison", "training", "map", "retrieval", "failures", "recipe"} <= set(ids)
    assert {link["href"][1:] for link in page.all("a")} <= set(ids)
    assert all("alt" in image for image in page.all("img"))
    for words in (
        "routed by true vertical", "this model", "+30.0", "val MAP@R 50.0% at step 200", "loss 0.52 to 0.002",
        "size = 256", "12,000", "1 min 16 s", "versions \N{MIDDLE DOT} torch 2.15", "seeds 0, 1",
        "1,234 images and 321 products (56 images unlabelled)", "leaving out 1 unlabelled image",
    ):  # fmt: skip
        assert words in page.text, words
    assert "None" not in page.text
    assert "nan" not in page.text.split()


def test_the_map_has_every_image_with_its_names(report, shop):
    _, page = report
    data = json.loads(next(script for script in page.scripts if '"verticals"' in script))
    (panel,) = data["panels"]
    assert len(panel["x"]) == len(panel["y"]) == len(shop) == 21
    assert data["verticals"] == ["bags", "shoes"]
    names = [None if code < 0 else data["products"][code] for code in data["product"]]
    assert names == shop.column("product").tolist()
    assert max(map(abs, panel["x"] + panel["y"])) == data["grid"]


def test_writing_again_gives_the_same_file(report, shop, tmp_path):
    path, _ = report
    versions = {"versions": {"torch": "2.15"}, "device": "cpu", "seeds": [0, 1], "note": None}
    reported(tmp_path / "again.html", results(full_comparison(), **versions), shop)
    assert (tmp_path / "again.html").read_bytes() == path.read_bytes()


def test_names_never_become_markup(tmp_path):
    verticals = [f"v{NASTY}", "w"]
    rows = [(vertical, f"p{NASTY}{vertical}", f"b{NASTY}") for vertical in verticals for _ in range(2)]
    content = results(
        [row("unified", 0.5, dict.fromkeys(verticals, 0.5), title=f"t{NASTY}", note=NASTY)],
        comparisons=[decisions.paired("base", decisions.comparison(**{NASTY: (0.1, "better")}), title=NASTY)],
        choice=decisions.choice(titles=(NASTY, f"e{NASTY}"), reason=NASTY), ensemble=decisions.ensemble(NASTY),
        combination=decisions.combination((f"a{NASTY}", f"b{NASTY}", f"c{NASTY}")),
        split=NASTY, recipe_toml=f"# {NASTY}\n[x]\n", curves={NASTY: {"step": [1], "loss": [1.0]}},
        **{f"key {NASTY}": NASTY},
    )  # fmt: skip
    catalogue = catalogue_of(tmp_path, rows)
    page = reported(tmp_path / "report.html", content, catalogue, targets=vectors_for(catalogue, size=3))
    assert len(page.all("script")) == len(page.scripts) == 2
    assert all(image["src"].startswith("data:image/webp") for image in page.all("img"))
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    data = json.loads(next(script for script in page.scripts if '"verticals"' in script))
    assert data["verticals"] == sorted(verticals)
    assert NASTY in page.text


@pytest.mark.parametrize(
    ("rows", "compared", "words"),
    [
        ([("a", "x", None)] * 2 + [("a", "y", None)], [row("unified", 0.5, {"a": 0.5})], "In a, the right product"),
        ([("a", None, None)] * 3, [row("unified", None, {"a": None})], "No queries: no product"),
        ([("a", "x", None)], [], "No models were compared"),
        ([("a", "x", None), ("b", "y", None)], [row("specialists", 0.5, {"a": 0.5, "b": None})], "no queries"),
        ([("a" * 200, "x" * 500, "b" * 300)] * 2, [row("base", 0.5, {"a" * 200: 0.5})], "x" * 500),
    ],
)  # fmt: skip
def test_small_and_odd_catalogues(tmp_path, rows, compared, words):
    content = results(compared, curves={}, recipe_toml="", catalogue={})
    page = reported(tmp_path / "report.html", content, catalogue_of(tmp_path, rows))
    assert words in page.text
    assert "None" not in page.text


def test_an_empty_selection_still_gives_a_report(shop, tmp_path):
    nothing = shop.select(split="train")
    page = reported(tmp_path / "report.html", results([]), nothing, np.zeros((0, 4)))
    assert "Nothing was evaluated" in page.text
    assert not page.all("canvas")


def test_many_verticals_get_grids_up_to_the_cap(tmp_path):
    names = [f"v{number:02}" for number in range(MOST_VERTICALS + 3)]
    catalogue = catalogue_of(tmp_path, [(name, name, None) for name in names for _ in range(2)])
    found = retrieval_groups(catalogue, Columns.of(catalogue), vectors_for(catalogue))
    assert found.left_out == 3
    assert [group.title for group in found.groups] == [None, *names[:MOST_VERTICALS]]


def test_grids_show_the_truth(shop):
    columns, vectors = Columns.of(shop), vectors_for(shop)
    for group in retrieval_groups(shop, columns, vectors).groups:
        assert group.gallery_images == (20 if group.title is None else 10)
        for one in group.rankings:
            assert [hit.right for hit in one.hits] == [hit.product == one.query.product for hit in one.hits]
            assert all(hit.product != "unlabelled" for hit in one.hits)
            assert {hit.vertical for hit in one.hits} <= ({None} if group.title else {"bags", "shoes"})
            assert (one.first_right_rank <= 8) == any(hit.right for hit in one.hits)


@pytest.mark.parametrize("vectors", [np.zeros((3, 4)), np.zeros(21), np.full((21, 4), np.nan)])
def test_vectors_that_do_not_fit_are_refused(shop, tmp_path, vectors):
    with pytest.raises(BadInputError, match="vectors must be finite"):
        write_report(tmp_path / "report.html", results([]), shop, vectors)
    assert not list(tmp_path.iterdir())


def decided(**changes):
    found = decisions.comparison((0.05, "better"), bags=(0.06, "better"), shoes=(-0.04, "worse"))
    parts = {
        "comparisons": [decisions.paired(key, found) for key in ("specialists", "base")],
        "choice": decisions.choice(),
        "ensemble": decisions.ensemble(),
        "combination": decisions.combination(),
    }
    return results(full_comparison(), **{**parts, **changes})


def test_decisions_are_shown_and_learning_targets_beside_the_embeddings(shop, tmp_path):
    page = reported(tmp_path / "report.html", decided(), shop, targets=vectors_for(shop, size=9))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {"choice", "groups", "paired-1", "paired-2", "step-1"} <= set(ids)
    assert {link["href"][1:] for link in page.all("a")} <= set(ids)
    for words in (
        "Each query searches its own vertical", "+6.0", "Ensemble was chosen on the val split: better and nowhere",
        "Ensemble against Plain: taken.", "within 2,000 image presentations", "energy kept 0.973", "left out",
        "Group 1", "2 trials of at most 36", "+ hats", "with bags, shoes", "MAP@R \N{MINUS SIGN}7.0", "refused",
        "bags + shoes - hats: refused; as it is", "(a) Learning targets", "(b) Unified embeddings", "of 9 dimensions",
        "better than the specialist in 1 of 2 and worse in shoes (\N{MINUS SIGN}4.0)",
    ):  # fmt: skip
        assert words in page.text, words
    assert "None" not in page.text
    assert "nan" not in page.text.split()
    # Not listed once more as provenance.
    assert "p adjusted" not in page.text
    assert len([one for one in page.all("canvas") if one.get("class") == "map-canvas"]) == 2
    data = json.loads(next(script for script in page.scripts if '"verticals"' in script))
    left, right = data["panels"]
    assert len(left["x"]) == len(right["x"]) == len(shop)
    assert left != right


@pytest.mark.parametrize("absent", ["comparisons", "choice", "ensemble", "combination"])
def test_each_decision_may_be_absent(shop, tmp_path, absent):
    page = reported(tmp_path / "report.html", decided(**{absent: None}), shop)
    texts = {
        "comparisons": "Paired, on the same queries",
        "choice": "was chosen on the val split",
        "ensemble": "learning targets are made of",
        "combination": "Every combination that was tried",
    }
    for key, words in texts.items():
        assert (words in page.text) == (key != absent), key
    assert {link["href"][1:] for link in page.all("a")} <= {one.get("id") for _, one in page.tags}


def test_an_ensemble_that_was_not_chosen_is_told_as_such(shop, tmp_path):
    values = decided()
    values["ensemble"]["learned_from"] = False
    page = reported(tmp_path / "report.html", values, shop)
    assert "An ensemble that was tried" in page.text
    assert "The chosen model does not learn from it." in page.text
    assert "learning targets are made of" not in page.text


def test_the_first_panel_is_named_for_what_it_shows(shop, tmp_path):
    title, path = "Embeddings of the specialists", tmp_path / "report.html"
    page = reported(path, results(full_comparison()), shop, targets=vectors_for(shop, 4), targets_title=title)
    assert f"(a) {title}" in page.text
    assert f"Left, the {title.lower()}" in page.text


def test_what_the_specialists_serve_better_is_said(shop, tmp_path):
    values = decided()
    values["choice"]["against_specialists"] = values["comparisons"][0]["comparison"]
    page = reported(tmp_path / "report.html", values, shop)
    assert "worse in shoes, which its specialist serves better" in page.text
    assert "worse in shoes" in table_text(choice_table(values["choice"]))


def test_the_numbers_of_separation_are_over_the_same_images(shop, tmp_path):
    vectors = np.zeros((len(shop), 4), np.float32)
    bags = shop.column("vertical") == "bags"
    vectors[bags, 0], vectors[~bags, 1] = 1, 1
    page = reported(tmp_path / "report.html", results(full_comparison()), shop, vectors)
    assert "Nearest other image is of the same vertical 100.0%" in page.text
    assert "Energy in those of another vertical 100.0%" in page.text  # both lie on the line between them


def test_targets_that_do_not_fit_are_refused(shop, tmp_path):
    with pytest.raises(BadInputError, match="targets must be finite, \\(N, D\\), one for each of the catalogue's 21"):
        write_report(tmp_path / "report.html", results([]), shop, vectors_for(shop), targets=np.zeros((3, 4)))
