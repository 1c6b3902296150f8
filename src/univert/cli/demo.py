"""The demo: the whole job on the bundled home sample, from pictures and photos to the items of a room, named."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path

import typer

from univert.cli.calibrating import calibrate
from univert.cli.options import load_embedder
from univert.cli.searching import search
from univert.cli.serving import serve as run_service
from univert.core.config import read_settings
from univert.core.files import fingerprint, write_atomic
from univert.core.terminal import print_table
from univert.data.catalogue import Catalogue
from univert.data.sample import PRODUCT_PICTURES, SAMPLE_PATHS, build_sample
from univert.main_job import TrainResult, train
from univert.report.console import results_table
from univert.search.indexing import index_catalogue
from univert.training.detection import train_detector
from univert.training.detection_recipe import DetectionRecipe
from univert.training.recipe import Recipe

DETECTOR_SETTINGS = (
    "detector.image_size_px=320",
    "views=2",
    "loop.epochs=1",
    "loop.min_steps=90",
    "loop.evaluations=2",
)
SETTINGS = (
    "base_network_learns=no",
    "model.image_size_px=128",
    "data.views=2",
    "specialists.loop.min_steps=100",
    "unify.loop.epochs=20",
    'unify.members=["specialists", "verticals", "joint:proxy-nca"]',
    'evaluation.baselines=["joint_proxy_nca"]',
)
"""Both far shorter than the default recipes, whose figures docs/detect.md and docs/home.md give."""

ROOM = "scene-0014"
"""A photo of the test split: no product in it was seen in any training."""
HITS = 5
HOST, PORT = "127.0.0.1", 8000


def run_demo(out: Path, *, seed: int, device: str, serve: bool) -> TrainResult:
    """Catalogue, detector, specialists, unified model, report, index, calibration, a photo of a room with its items.

    At the end, to `serve`, the search page. What is in the folder `out` already and unchanged is used again.
    """
    started = time.perf_counter()
    say = typer.echo
    shop = out / "home.lance"
    inputs = fingerprint(*(path.read_bytes() for path in SAMPLE_PATHS))
    _unless_done(shop, inputs, lambda: build_sample(shop, overwrite=True))
    catalogue, scenes = Catalogue.open(shop), Catalogue.open(shop, scenes=True)
    pictures = catalogue.select(source=PRODUCT_PICTURES)
    say(
        f"catalogue    {shop}: {len(pictures):,} product pictures in {len(catalogue.verticals)} verticals, "
        f"{len(scenes)} photos with {len(catalogue) - len(pictures):,} items"
    )

    chosen = read_settings(DetectionRecipe, None, [f"seed={seed}", *DETECTOR_SETTINGS])
    detector = out / "detector"
    found = train_detector(scenes, detector, chosen, device=device)
    recall = found["validation"]["any_vertical_ap_50"], found["validation"]["map_50"]
    say(f"detector     {detector}: AP@50 {recall[0]:.2f} whatever the vertical, mAP@50 {recall[1]:.2f}, on val")

    recipe = read_settings(Recipe, None, [f"seed={seed}", *SETTINGS])
    result = train(catalogue, out, recipe, device=device)
    print_table(results_table(result.finished.compared, result.finished.comparisons))
    say(f"report       {out / 'report.html'}")
    for problem in (found["not_exported"], result.not_exported):
        if problem is not None:
            say(f"not exported {problem}")

    model = load_embedder(result.model_path, device)
    index = out / "home.index"
    inputs = f"{model.fingerprint} {catalogue.fingerprint}"
    _unless_done(index, inputs, lambda: index_catalogue(model, pictures, index, overwrite=True))
    say(f"index        {index}: {len(pictures):,} product pictures")

    say("calibration  how sure the service is of what an item shows, asked with the items of photos")
    calibrate(result.model_path, str(index), shop)

    photo = out / "room.jpg"
    (place,) = (scenes.column("id") == ROOM).nonzero()[0]
    write_atomic(photo, scenes.image_bytes([place])[0])
    say(f"photo        {photo}: a room of the test split, whose products no training has seen")
    search(result.model_path, str(index), photo, k=HITS, detector=detector, out=out / "room.html", device=device)

    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    say(f"done in {time.perf_counter() - started:.0f} s with at most {peak_gb:.1f} GB of memory\n")
    say("Search with a photo of your own:")
    say(f"  univert search {result.model_path} {index} PHOTO --detector {detector} --out found.html")
    address = f"http://{HOST}:{PORT}"
    if serve:
        say(f"The search page is at {address} until you press Ctrl-C.")
        run_service(str(result.model_path), str(index), detector=detector, host=HOST, port=PORT)
    else:
        say(f"Open the search page at {address}:")
        say(f"  univert serve {result.model_path} {index} --detector {detector}")
    return result


def _unless_done(path: Path, inputs: str, make: Callable[[], object]) -> None:
    """Make something, unless it is there already, made from the same inputs."""
    marker = path.with_name(f"{path.name}.inputs")
    if not (path.exists() and marker.exists() and marker.read_text() == inputs):
        make()
        write_atomic(marker, inputs)
