import doctest
import importlib
import pickle
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import univert
from univert.core.run import Run
from univert.data.catalogue import Catalogue
from univert.search.index import Index

HEAVY = ("torch", "timm", "lance", "lancedb", "pyarrow", "faiss", "sklearn", "openTSNE", "numpy", "PIL", "pydantic")


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import univert, univert.cli", HEAVY),
        ("import univert.models.config", ("torch", "timm", "pyarrow")),
        ("from univert import search, training; from univert.training import Recipe", ("torch", "timm")),
        ("import univert.data.build; from univert.search import *", ("torch", "timm")),
    ],
)
def test_importing_loads_nothing_heavy(code: str, absent: tuple[str, ...]) -> None:
    code = f"import sys; {code}; print(*[name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    "path",
    [
        "Embedder",
        "data.Catalogue",
        "losses.HardMiner",
        "losses.miners.HardMiner",
        "models.Embedder",
        "proxies.StaticAssignment",
        "search.Index",
        "train",
        "training.train",
    ],
)
def test_public_names_are_there_after_importing_the_package_alone(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place: object = univert
    for name in path.split("."):
        if hasattr(place, "__path__"):
            monkeypatch.delattr(place, name, raising=False)  # as before its first use
        place = getattr(place, name)
    assert place.__module__.startswith("univert.")


def test_a_typo_is_answered_before_pytorch_loads() -> None:
    code = """
import sys
sys.argv = ["univert", "train", "nowhere", "--set", "specialists.loss_options.marign=0.3"]
from univert.cli import main
try:
    main()
finally:
    assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "did you mean 'margin'?" in done.stderr


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
    for docstring in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        report: list[str] = []
        if docstring.examples:
            runner.run(docstring, out=report.append)
        assert not report, "".join(report)


def test_what_was_opened_outlives_a_change_of_the_working_folder(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(catalogue.path, tmp_path / "here" / "shop.lance")
    monkeypatch.chdir(tmp_path / "here")
    shop = Catalogue.open("shop.lance").select(split="train")
    run = Run(Path("run"))
    run.finish("one", "x", {"steps": 3})
    with Index.create("shop.index", size=2, model_fingerprint="m") as writer:
        writer.upsert(np.eye(2, dtype=np.float32), pa.table({"id": ["a", "b"], "vertical": ["hats"] * 2}))
        writer.publish()
        index = Index.open("shop.index")
        kept = pickle.dumps(shop)
        monkeypatch.chdir(tmp_path)
        writer.upsert(np.eye(2, dtype=np.float32)[:1], pa.table({"id": ["c"], "vertical": ["hats"]}))
        writer.publish()
    assert len(Index.open(index.path)) == 3
    assert index.search(np.eye(2, dtype=np.float32)[0], 1, model_fingerprint="m")[0].id == "a"
    loaded = pickle.loads(kept)
    assert loaded.image_bytes([3]) == shop.image_bytes([3])
    assert loaded.fingerprint == shop.fingerprint
    assert run.finished("one", "x") == {"steps": 3}
    assert all(path.is_absolute() for path in (run.path, shop.path, loaded.path, index.path))
