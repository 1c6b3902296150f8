"""The demo: the whole main job on the bundled sample, ending in one search."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from univert.cli.searching import hits_table
from univert.core.device import choose_device
from univert.core.files import fingerprint, write_atomic
from univert.core.tables import table_text
from univert.data.bundled import SAMPLE_HELD_OUT_BRAND, SAMPLE_PATH, build_sample
from univert.data.catalogue import Catalogue
from univert.main_job import TrainResult, train
from univert.models.embedder import Embedder
from univert.report.console import results_table
from univert.report.search_page import render_grid
from univert.search.index import Index, search_image
from univert.search.indexing import index_catalogue
from univert.training.recipe import Baseline, EvaluationConfig, Recipe

HITS = 5
BASELINES: tuple[Baseline, ...] = ("joint_triplet", "joint_proxy_nca", "unified_aligned")


def run_demo(out: Path, *, seed: int, device: str, say: Callable[[str], None]) -> TrainResult:
    """Catalogue, specialists, unified model, report, index, and a search with a drawing the index never saw.

    Args:
        out: everything goes here; what is there already and unchanged is used again.
        seed: of everything random.
        device: a torch device, or `auto`.
        say: prints a line.
    """
    started = time.perf_counter()
    catalogue = _catalogue(out / "sample.lance")
    say(f"catalogue  {catalogue.path}: {len(catalogue):,} images, {len(catalogue.verticals)} verticals")
    recipe = Recipe(seed=seed, evaluation=EvaluationConfig(baselines=BASELINES))
    result = train(catalogue, out, recipe, device=device)
    say(table_text(results_table(result.results)))
    say(f"report     {out / 'report.html'}")
    model = result.model.to(choose_device(device))
    index = _index(model, catalogue.select(not_brand=SAMPLE_HELD_OUT_BRAND), out / "sample.index")
    say(f"index      {index.path}: all but the drawings by {SAMPLE_HELD_OUT_BRAND}")
    _search(model, catalogue, index, out, say)
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
    seconds = time.perf_counter() - started
    say(f"done in {seconds:.0f} s, at most {peak_gb:.1f} GB of memory; search with your own picture:")
    say(f"           univert search {result.model_path} {index.path} PICTURE --out found.html")
    return result


def _catalogue(path: Path) -> Catalogue:
    marker, inputs = path.with_name(f"{path.name}.inputs"), fingerprint(SAMPLE_PATH.read_bytes())
    if not (path.exists() and marker.exists() and marker.read_text() == inputs):
        build_sample(path, overwrite=True)
        write_atomic(marker, inputs)
    return Catalogue.open(path)


def _index(model: Embedder, catalogue: Catalogue, path: Path) -> Index:
    marker = path.with_name(f"{path.name}.inputs")
    inputs = f"{model.fingerprint} {catalogue.fingerprint}"
    if not (path.exists() and marker.exists() and marker.read_text() == inputs):
        index_catalogue(model, catalogue, path, overwrite=True)
        write_atomic(marker, inputs)
    return Index.open(path)


def _search(model: Embedder, catalogue: Catalogue, index: Index, out: Path, say: Callable[[str], None]) -> None:
    """Search with the first test image of the artist left out of the index."""
    queries = catalogue.select(split="test", brand=SAMPLE_HELD_OUT_BRAND)
    product = queries.column("product")[0]
    picture = out / "query.webp"
    write_atomic(picture, queries.image_bytes([0])[0])
    hits = search_image(model, index, picture, k=HITS)
    write_atomic(out / "search.html", render_grid(picture, hits, index))
    say(f"search     {picture}: {product!r} as drawn by {SAMPLE_HELD_OUT_BRAND}, who is not in the index")
    say(table_text(hits_table(hits)))
    say(f"pictures   {out / 'search.html'}")
