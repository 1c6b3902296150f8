"""What a user sees of the losses: their import, their docstrings and examples, their page in the documentation."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
from torch import nn

from univert import losses

PAGES = Path(__file__).parents[2] / "docs" / "losses"
FOUND = {name: getattr(losses, name) for name in losses.__all__ if name.endswith("Loss")}
every_loss = pytest.mark.parametrize("loss", FOUND.values(), ids=FOUND.keys())


def page_of(loss: type[nn.Module]) -> Path:
    """`proxy_nca_loss.md` beside `proxy_nca_loss.py`."""
    name = loss.__module__.rpartition(".")[2]
    return PAGES / ("mined_loss.md" if name == "miners" else f"{name}.md")


def test_every_loss_and_miner_is_exported() -> None:
    there = set()
    for info in pkgutil.iter_modules(losses.__path__, "univert.losses."):
        for name, item in vars(importlib.import_module(info.name)).items():
            is_public = inspect.isclass(item) and item.__module__ == info.name and not inspect.isabstract(item)
            there |= {name} if is_public and name.endswith(("Loss", "Miner")) else set()
    assert set(losses.__all__) == there


@every_loss
def test_every_loss_has_docstrings_and_an_example(loss: type[nn.Module]) -> None:  # which tests/test_package.py runs
    assert loss.__doc__
    assert loss.forward.__doc__
    assert ">>>" in loss.__doc__
    module = inspect.getmodule(loss)
    function = getattr(module, module.__name__.rpartition(".")[2], None)
    assert loss is losses.MinedLoss or "Source: " in loss.__doc__ + (getattr(function, "__doc__", None) or "")


@every_loss
def test_the_page_of_a_loss_lists_its_parameters_and_defaults(loss: type[nn.Module]) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", page_of(loss).read_text(), flags=re.MULTILINE)
    found = {name: default if default == "required" else default.strip("`") for name, default in rows}
    wanted = {
        name: "required" if parameter.default is parameter.empty else repr(parameter.default)
        for name, parameter in inspect.signature(loss).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)  # of a loss without any
    }
    assert list(found) == list(wanted)
    for name, default in wanted.items():
        same = found[name] == default or ast.literal_eval(found[name]) == ast.literal_eval(default)
        assert same, f"{name}: the page says {found[name]}, the code {default}"


@every_loss
def test_the_page_of_a_loss_has_an_example_and_is_in_the_overview(loss: type[nn.Module]) -> None:
    page = page_of(loss)
    assert re.search(rf"from univert\.losses import .*\b{loss.__name__}\b", page.read_text())
    assert f"[{loss.__name__}]({page.name})" in (PAGES / "README.md").read_text()


def test_every_page_belongs_to_a_loss() -> None:
    assert {page.name for page in PAGES.glob("*.md")} == {"README.md", *(page_of(f).name for f in FOUND.values())}
