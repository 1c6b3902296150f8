"""The demo: the whole job on the bundled sample, from pictures to a search page."""

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
from univert.data.sample import SAMPLE_HELD_OUT_BRAND, SAMPLE_PATH, build_sample
from univert.main_job import TrainResult, train
from univert.report.console import results_table
from univert.search.indexing import index_catalogue
from univert.training.recipe import Recipe

HITS = 5
HOST, PORT = "127.0.0.1", 8000
SETTINGS = (
    "data.views=2",
    "specialists.loop.min_steps=150",
    "unify.loop.epochs=25",
    'evaluation.baselines=["joint_triplet", "joint_proxy_nca", "unified_aligned"]',
)
"""Shorter than the default recipe, which gains about half a point of Recall@1 in half as much time again."""


def run_demo(out: Path, *, seed: int, device: str, serve: bool) -> TrainResult:
    """Catalogue, specialists, unified model, report, index, one search, calibration, and, to `serve`, the search page.

    What is in the folder `out` already and unchanged is used again.
    """
    started = time.perf_counter()
    say = typer.echo
    shop = out / "sample.lance"
    _unless_done(shop, fingerprint(SAMPLE_PATH.read_bytes()), lambda: build_sample(shop, overwrite=True))
    catalogue = Catalogue.open(shop)
    say(f"catalogue    {shop}: {len(catalogue):,} pictures in {len(catalogue.verticals)} verticals")

    recipe = read_settings(Recipe, None, [f"seed={seed}", *SETTINGS])
    result = train(catalogue, out, recipe, device=device)
    print_table(results_table(result.finished.compared))
    say(f"report       {out / 'report.html'}")
    if result.not_exported is not None:
        say(f"not exported {result.not_exported}")
    model = load_embedder(result.model_path, device)
    index = out / "sample.index"
    inputs = f"{model.fingerprint} {catalogue.fingerprint}"
    others = catalogue.select(not_brand=SAMPLE_HELD_OUT_BRAND)
    _unless_done(index, inputs, lambda: index_catalogue(model, others, index, overwrite=True))
    say(f"index        {index}: all pictures but those by the artist {SAMPLE_HELD_OUT_BRAND}")

    queries = catalogue.select(split="test", brand=SAMPLE_HELD_OUT_BRAND)
    picture = out / "query.webp"
    write_atomic(picture, queries.image_bytes([0])[0])
    say(f"search       {picture}: {queries.column('product')[0]!r} by {SAMPLE_HELD_OUT_BRAND}")
    search(result.model_path, str(index), picture, k=HITS, out=out / "search.html", device=device)

    say("calibration  how sure the service is of what a photo shows")
    calibrate(result.model_path, str(index), shop)

    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    say(f"done in {time.perf_counter() - started:.0f} s with at most {peak_gb:.1f} GB of memory\n")
    say("Search with a picture of your own:")
    say(f"  univert search {result.model_path} {index} PICTURE --out found.html")
    address = f"http://{HOST}:{PORT}"
    if serve:
        say(f"The search page is at {address} until you press Ctrl-C.")
        run_service(str(result.model_path), str(index), host=HOST, port=PORT)
    else:
        say(f"Open the search page at {address}:")
        say(f"  univert serve {result.model_path} {index}")
    return result


def _unless_done(path: Path, inputs: str, make: Callable[[], object]) -> None:
    """Make something, unless it is there already, made from the same inputs."""
    marker = path.with_name(f"{path.name}.inputs")
    if not (path.exists() and marker.exists() and marker.read_text() == inputs):
        make()
        write_atomic(marker, inputs)
