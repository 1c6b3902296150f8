"""How large the house is: lines, files, settings, the files one search walks through, and what imports cost.

Usage: python tools/house.py
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import subprocess
import sys
import tempfile
import threading
import typing
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "univert"
IMPORTS = ("univert", "univert.losses", "univert.training.recipe")
ROUNDS = 5


def sizes(folder: Path) -> dict[str, int]:
    """Lines of each Python file below a folder, by its path."""
    return {
        str(path.relative_to(folder)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sorted(folder.rglob("*.py"))
    }


def leaves(config: Any) -> list[str]:
    """The settings of a dataclass, those of the dataclasses within it included."""
    hints = typing.get_type_hints(config)
    found: list[str] = []
    for field in dataclasses.fields(config):
        inner = hints[field.name]
        found += [f"{field.name}.{leaf}" for leaf in leaves(inner)] if dataclasses.is_dataclass(inner) else [field.name]
    return found


def service_settings() -> list[str]:
    """The names of the service's settings."""
    from univert.serving.settings import Settings

    return list(Settings.model_fields)


def files_of_a_search() -> list[str]:
    """Files of ours whose functions run while the service answers one `POST /search`, warmed up."""
    from starlette.testclient import TestClient

    from univert.data.build import build_catalogue
    from univert.data.catalogue import Catalogue
    from univert.data.sample import sample_rows
    from univert.models.config import EmbedderConfig
    from univert.models.embedder import Embedder
    from univert.search.indexing import index_catalogue
    from univert.serving.app import create_app
    from univert.serving.settings import Settings

    seen: set[str] = set()
    recording = threading.Event()

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and recording.is_set():
            seen.add(frame.f_code.co_filename)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = list(itertools.islice(sample_rows(), 40))
        build_catalogue(rows, folder / "shop.lance")
        config = EmbedderConfig(base_network="timm/test_efficientnet", pretrained=False, size=16, image_size_px=32)
        model = Embedder(config).eval()
        model.save_pretrained(folder / "model")
        command = [sys.executable, "-c", "from univert.cli import main; main()", "export", str(folder / "model")]
        subprocess.run(command, check=True, capture_output=True)
        index_catalogue(model, Catalogue.open(folder / "shop.lance"), folder / "shop.index")
        photo = rows[0].image or b""
        given: dict[str, Any] = {"model": str(folder / "model"), "index": str(folder / "shop.index")}
        threading.setprofile(look)  # of the threads that the service starts
        try:
            with TestClient(create_app(Settings(**given)), base_url="http://localhost") as client:
                for warm in (False, True):
                    (recording.set if warm else recording.clear)()
                    client.post("/search", files={"photo": ("photo.webp", photo)}).raise_for_status()
                recording.clear()  # stopping is no part of it
        finally:
            threading.setprofile(None)
    return sorted(str(Path(each).relative_to(SOURCE)) for each in seen if Path(each).is_relative_to(SOURCE))


def import_seconds(module: str) -> float:
    """Median seconds that importing a module takes in a fresh interpreter."""
    code = "import time; started = time.perf_counter(); import {}; print(time.perf_counter() - started)"
    command = [sys.executable, "-c", code.format(module)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(ROUNDS)]
    return statistics.median(float(out) for out in runs)


def table() -> Iterator[tuple[str, str]]:
    """The figures, a name and a value each."""
    from univert.training.recipe import Recipe

    for name, folder in (("src", SOURCE), ("tests", ROOT / "tests")):
        lines = sizes(folder)
        longest = max(lines, key=lambda file: lines[file])
        yield f"lines of Python under {name}", f"{sum(lines.values()):,}"
        yield f"files under {name}", f"{len(lines):,}"
        yield f"lines a file under {name}", f"{sum(lines.values()) / len(lines):.0f}"
        yield f"longest file under {name}", f"{lines[longest]} ({longest})"
    yield "settings of a recipe", str(len(leaves(Recipe)))
    yield "settings of the service", str(len(service_settings()))
    walked = files_of_a_search()
    yield "files that POST /search walks through", str(len(walked))
    for file in walked:
        yield "", file
    for module in IMPORTS:
        yield f"seconds to import {module}", f"{import_seconds(module):.2f}"


def main() -> None:
    """Print the figures."""
    for name, value in table():
        print(f"{name:42s} {value}")


if __name__ == "__main__":
    main()
