"""Every Python snippet of the documentation runs, page by page, beside a small catalogue `shop.lance`."""

import re
import shutil
from pathlib import Path

import pytest

from univert.core.config import config_from_toml
from univert.data.catalogue import Catalogue
from univert.training.recipe import Recipe

DOCS = Path(__file__).parents[1] / "docs"
ROOT = DOCS.parent
PAGES = sorted(ROOT.glob("*.md"))
DOCS_PAGES = sorted(DOCS.rglob("*.md"))


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT).with_suffix(""))


def snippets(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("page", DOCS_PAGES, ids=name_of)
def test_python_snippets_run(page: Path, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = snippets(page, "python")
    if not code:
        return
    monkeypatch.chdir(tmp_path)
    shutil.copytree(catalogue.path, "shop.lance")
    names: dict[str, object] = {}
    for snippet in code:
        exec(compile(snippet, str(page), "exec"), names)


@pytest.mark.parametrize("page", DOCS_PAGES, ids=name_of)
def test_recipes_are_valid(page: Path, tmp_path: Path) -> None:
    for number, snippet in enumerate(snippets(page, "toml")):
        path = tmp_path / f"{number}.toml"
        path.write_text(snippet)
        config_from_toml(Recipe, path)


@pytest.mark.parametrize("page", [*PAGES, *DOCS_PAGES], ids=name_of)
def test_links_lead_somewhere_and_nothing_is_left_to_fill_in(page: Path) -> None:
    text = page.read_text()
    assert "@@" not in text
    for target in re.findall(r"\]\(([^)#]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
