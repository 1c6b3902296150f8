"""Where the pictures are made, which jobs are left, and the processes that do them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from home.models import Model, Product, products_of, read_models

SCENES = 700

VIEWS = ((0.55, 0.32), (-0.75, 0.42), (1.25, 0.2))
"""Turn and height of the camera of each product picture, in radians; 0 is the front."""

DEATHS = 2
"""A job that ended its process so often is left out."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """The folders of a build.

    Attributes:
        work: everything that is made.
        sources: the folder of the `*.sh3f` archives.
    """

    work: Path
    sources: Path

    @property
    def unpacked(self) -> Path:
        """The archives' files, one folder a library."""
        return self.work / "lib"

    @property
    def library(self) -> Path:
        """The converted models."""
        return self.work / "models"

    @property
    def pictures(self) -> Path:
        """The product pictures."""
        return self.work / "pictures"

    @property
    def scenes(self) -> Path:
        """The photos of scenes, with what they show."""
        return self.work / "scenes"

    def prepare(self) -> None:
        """Make the folders and unpack the archives."""
        for folder in (self.library, self.pictures, self.scenes):
            folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.sources.glob("*.sh3f")):
            if not (self.unpacked / path.stem).exists():
                with zipfile.ZipFile(path) as archive:
                    archive.extractall(self.unpacked / path.stem)

    def models(self) -> list[Model]:
        """Every model of the table."""
        return read_models(self.sources)

    def products(self) -> list[Product]:
        """Every product, of the models that were converted."""
        models = self.models()
        colours = {}
        for model in models:
            path = self.library / f"{model.key}.json"
            if path.exists():
                colours[model.key] = tuple(json.loads(path.read_text(encoding="utf-8"))["colour"])
        return products_of(models, colours)

    def names(self, kind: str) -> list[str]:
        """The names of all jobs of a kind, in order."""
        if kind == "convert":
            return [model.key for model in self.models()]
        if kind == "pictures":
            return [f"{product.key}.{view}" for view in range(len(VIEWS)) for product in self.products()]
        return [str(number) for number in range(SCENES)]

    def result(self, kind: str, name: str) -> Path:
        """The file that is there when a job is done."""
        if kind == "pictures":
            return self.pictures / f"{name}.jpg"
        return (self.library if kind == "convert" else self.scenes) / f"{name}.json"


def run_jobs(place: Workplace, kind: str, python: Path, processes: int) -> None:
    """Do all jobs of a kind that are not done yet, in `processes` processes; tells its progress every minute."""
    names = place.names(kind)
    print(f"{kind}: {len(names)} jobs", flush=True)
    threads = [
        threading.Thread(target=run_share, args=(place, kind, python, names[share::processes], share))
        for share in range(processes)
    ]
    started, first = time.monotonic(), done(place, kind, names)
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for thread in threads:
            thread.join(timeout=60 / processes)
        count = done(place, kind, names)
        rate = (count - first) / (time.monotonic() - started)
        print(f"{kind}: {count} of {len(names)}, {rate * 60:.1f} a minute", flush=True)


def done(place: Workplace, kind: str, names: list[str]) -> int:
    """How many of the jobs are done."""
    return sum(place.result(kind, name).exists() for name in names)


def run_share(place: Workplace, kind: str, python: Path, names: list[str], share: int) -> None:
    """Do some jobs in one process at a time, started again when it ends early."""
    current = place.work / f"{kind}.{share}.current"
    log = place.work / f"{kind}.{share}.log"
    deaths: dict[str, int] = {}
    while left := [it for it in names if not place.result(kind, it).exists() and deaths.get(it, 0) < DEATHS]:
        worker = Path(__file__).with_name("worker.py")
        command = [str(part) for part in (python, worker, kind, place.work, place.sources, current)]
        with log.open("a", encoding="utf-8") as out:
            ended = subprocess.run(command, input="\n".join(left), text=True, stdout=out, stderr=out, check=False)
        if ended.returncode:
            culprit = current.read_text(encoding="utf-8") if current.exists() else left[0]
            deaths[culprit] = deaths.get(culprit, 0) + 1
            print(
                f"{kind}: {culprit} ended the process with {ended.returncode}; see {log}", file=sys.stderr, flush=True
            )
    for name, count in deaths.items():
        if count >= DEATHS:
            print(f"{kind}: {name} is left out", file=sys.stderr, flush=True)
