from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from filelock import FileLock

if TYPE_CHECKING:  # the process that only hands out the tests loads none of it
    from univert.data.catalogue import Catalogue
    from univert.training.recipe import Recipe

gc.disable()  # until all is imported and collected: next to nothing of that is garbage
if "PYTEST_XDIST_WORKER" in os.environ:
    atexit.register(os._exit, 0)  # all is said by then; taking apart what was imported takes two seconds
else:
    atexit.register(gc.unfreeze)
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a thread without work leaves its core to the other tests

Univert = Callable[..., tuple[int, str, str]]


def pytest_collection_finish() -> None:
    """What was imported and collected stays: no need to look through it for garbage again and again."""
    gc.freeze()
    gc.enable()


def pytest_runtest_setup() -> None:
    """An engine sets the threads of the whole process: they end with its test."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def univert(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Univert:
    """Run the command as the console script does; exit status, stdout, stderr."""
    from univert.cli import main

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["univert", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
            raise SystemExit(0)
        written = capsys.readouterr()
        return int(stop.value.code or 0), written.out, written.err

    return run


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Models that would get an ONNX file now: to export one takes seconds, and has tests of its own."""
    folders = list[Path]()
    for module in ("models.runtime.onnx_export", "main_job", "training.detection"):
        monkeypatch.setattr(f"univert.{module}.export_published", lambda folder, *_: folders.append(Path(folder)))
    return folders


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first of the test processes makes for all of them; only to be read."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            half = folder.with_suffix(".half")
            half.mkdir()
            make(half)
            half.rename(folder)
    return folder


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    from tests.drawn import drawn_rows
    from univert.data.build import build_catalogue
    from univert.data.catalogue import Catalogue

    out = tmp_path_factory.mktemp("catalogue") / "drawn.lance"
    build_catalogue(drawn_rows(), out)
    return Catalogue.open(out)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    from univert.models.config import EmbedderConfig
    from univert.training.combine.config import CombineConfig
    from univert.training.label_config import LabelLoopConfig, LoopConfig, SpecialistsConfig
    from univert.training.recipe import DataConfig, EvaluationConfig, Recipe
    from univert.training.targets.config import UnifyConfig

    short = {"epochs": 1, "min_steps": 12, "batch_size": 12, "evaluations": 3}
    return Recipe(
        base_network_learns="no",
        data=DataConfig(views=2),
        model=EmbedderConfig(
            base_network="timm/test_efficientnet", pretrained=False, hidden_sizes=(16,), size=8, image_size_px=32
        ),
        specialists=SpecialistsConfig(loop=LabelLoopConfig(images_per_product=3, **short)),
        combine=CombineConfig(mode="off"),
        unify=UnifyConfig(loop=LoopConfig(**short)),
        evaluation=EvaluationConfig(resamples=20),
    )
