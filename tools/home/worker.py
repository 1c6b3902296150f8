"""The process that runs Blender: works through named jobs one after the other, each written whole or not at all.

Run by `build_home.py`, which starts it again when it dies and leaves out a job that killed it twice.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from home import blender, render
from home.jobs import Workplace
from home.scenes import make_scene

JOBS_A_PROCESS = 300
"""Blender is started afresh after so many jobs: it does not give all memory back."""


def convert_job(place: Workplace) -> Callable[[str], None]:
    """Converts the model of a key."""
    models = {model.key: model for model in place.models()}

    def run(name: str) -> None:
        model = models[name]
        blender.convert(model, place.unpacked / model.library / model.obj, place.library)

    return run


def picture_job(place: Workplace) -> Callable[[str], None]:
    """Takes the picture `KEY.VIEW` of a product."""
    products = {product.key: product for product in place.products()}

    def run(name: str) -> None:
        key, view = name.rsplit(".", 1)
        write(place.pictures / f"{name}.jpg", render.product_picture(products[key], int(view), place.library))

    return run


def scene_job(place: Workplace) -> Callable[[str], None]:
    """Takes the photo of a scene by its number."""
    products = place.products()

    @cache
    def points(key: str) -> np.ndarray:
        return render.surface_points(place.library, key)

    def run(name: str) -> None:
        photo, shown = render.scene_photo(make_scene(int(name), products, points), place.library)
        write(place.scenes / f"{name}.jpg", photo)
        blender.write_json(place.scenes / f"{name}.json", shown)

    return run


JOBS = {"convert": convert_job, "pictures": picture_job, "scenes": scene_job}


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.replace(path)


def main() -> None:
    """Work through the job names on standard input; the name in hand stands in the file that the caller names."""
    kind, work, sources, current = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    run = JOBS[kind](Workplace(work, sources))
    for name in sys.stdin.read().split()[:JOBS_A_PROCESS]:
        current.write_text(name, encoding="utf-8")
        try:
            run(name)
        except Exception:
            traceback.print_exc()
            sys.exit(1)
    current.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
