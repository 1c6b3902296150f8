from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import univert

HEAVY = ("torch", "timm", "lance", "lancedb", "pyarrow", "faiss", "sklearn", "openTSNE", "numpy", "PIL", "pydantic")


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("univert", HEAVY),
        ("univert.cli", HEAVY),
        ("univert.data.catalogue", ("torch",)),
        ("univert.data.build", ("torch",)),
        ("univert.models.config", ("torch", "timm", "pyarrow")),
        ("univert.training.recipe", ("torch", "timm")),
        ("univert.models.runtime.engine", ("torch", "timm")),
    ],
)
def test_importing_loads_nothing_heavy(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*[name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


PUBLIC = (
    "univert.Embedder",
    "univert.data.Catalogue",
    "univert.losses.HardMiner",
    "univert.losses.miners.HardMiner",
    "univert.models.Embedder",
    "univert.proxies.StaticAssignment",
    "univert.search.Index",
    "univert.train",
    "univert.training.train",
)


def test_public_names_are_there_after_importing_the_package_alone() -> None:
    subprocess.run([sys.executable, "-c", f"import univert; {'; '.join(PUBLIC)}"], check=True)


def test_a_typo_is_answered_before_pytorch_loads() -> None:
    code = """
import sys
sys.argv = ["univert", "train", "nowhere", "--set", "specialists.lop.epochs=3"]
from univert.cli import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "did you mean specialists.loop?" in done.stderr


FOUND = list(pkgutil.walk_packages(univert.__path__, "univert."))
PACKAGES = ["univert", *(info.name for info in FOUND if info.ispkg)]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_exported_name_exists(name: str) -> None:
    package = importlib.import_module(name)
    exported = getattr(package, "__all__", [])
    assert set(exported) <= set(dir(package))
    assert all(getattr(package, each) is not None for each in exported)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize("name", [info.name for info in FOUND])
def test_docstrings_exist_and_their_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    torch.manual_seed(0)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        report: list[str] = []
        runner.run(example, out=report.append)
        assert not report, "".join(report)
