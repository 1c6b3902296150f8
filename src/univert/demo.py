"""The demo: the whole main job on the bundled sample, ending in one search."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from univert.core.files import write_atomic
from univert.data.bundled import HELD_OUT_BRAND, build_sample, sample_fingerprint
from univert.data.catalogue import Catalogue
from univert.evaluation.console import results_table, table_text
from univert.models.embedder import Embedder
from univert.search.lance_store import LanceIndex
from univert.serving.indexing import index_catalogue
from univert.serving.lookup import hits_table, render_grid, search_image
from univert.training.pipeline import TrainResult, train
from univert.training.recipe import Recipe

HITS = 5


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
    result = train(catalogue, out, Recipe(seed=seed), device=device)
    say(table_text(results_table(result.results)))
    say(f"report     {out / 'report.html'}")
    model = result.model.to(device if device != "auto" else "cpu")
    index = _index(model, catalogue.select(not_brand=HELD_OUT_BRAND), out / "sample.index")
    say(f"index      {index.path}: all but the drawings by {HELD_OUT_BRAND}")
    _search(model, catalogue, index, out, say)
    say(f"done in {time.perf_counter() - started:.0f} s; search with your own picture:")
    say(f"           univert search {result.model_path} {index.path} PICTURE --out found.html")
    return result


def _catalogue(path: Path) -> Catalogue:
    if path.exists():
        catalogue = Catalogue.open(path)
        if catalogue.fingerprint == sample_fingerprint():
            return catalogue
    return build_sample(path, overwrite=True)


def _index(model: Embedder, catalogue: Catalogue, path: Path) -> LanceIndex:
    marker = path.with_suffix(".inputs")
    inputs = f"{model.fingerprint} {catalogue.fingerprint}"
    if not (path.exists() and marker.exists() and marker.read_text() == inputs):
        index_catalogue(model, catalogue, path, overwrite=True)
        write_atomic(marker, inputs)
    return LanceIndex.open(path)


def _search(
    model: Embedder, catalogue: Catalogue, index: LanceIndex, out: Path, say: Callable[[str], None]
) -> None:
    """Search with the first test image, by name, of the artist left out of the index."""
    queries = catalogue.select(split="test", brand=HELD_OUT_BRAND)
    product = queries.column("product")[0]
    picture = out / "query.webp"
    write_atomic(picture, queries.image_bytes([0])[0])
    hits = search_image(model, index, picture, k=HITS)
    write_atomic(out / "search.html", render_grid(picture, hits, index))
    say(f"search     {picture}: {product!r} as drawn by {HELD_OUT_BRAND}, who is not in the index")
    say(table_text(hits_table(hits)))
    say(f"pictures   {out / 'search.html'}")
