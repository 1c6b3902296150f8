"""What keeping the maps of frozen layers saves where the last stages of the base network learn.

    python bench/learning_base_network.py [--rounds 5] [--steps 4] [--blocks 2] [--out .work/bench-partial]

Takes training steps (load a batch, forward, backward) on the emoji in turn from images and from kept maps, on the same
batches, and reports the ratio within each round. Writes bench/results/learning-base-network.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from common import commit, cpu_name, emoji_catalogue
from univert.core.allocator import reuse_freed_memory
from univert.core.files import write_atomic
from univert.core.run import Run
from univert.models.embedder import Embedder
from univert.training.recipe import Recipe
from univert.training.run_context import RunContext
from univert.training.sources import FrontSource, ImageSource, Source

RESULT = Path(__file__).parent / "results" / "learning-base-network.md"
BATCH = 128


def seconds_a_step(source: Source, embedder: Embedder, batches: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Wall time of a training step without the optimiser."""
    embedder.train()
    source.prefetch(*batches[0])
    started = time.perf_counter()
    for place, (positions, views) in enumerate(batches):
        embedder.zero_grad()
        outputs = source.embed(embedder, positions, views)
        if place + 1 < len(batches):
            source.prefetch(*batches[place + 1])  # as the training does: the next batch is decoded meanwhile
        outputs[:, 0].sum().backward()
    return (time.perf_counter() - started) / len(batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="steps a round and way")
    parser.add_argument("--blocks", type=int, default=2, help="stages that learn")
    parser.add_argument("--out", type=Path, default=Path(".work/bench-partial"))
    options = parser.parse_args()
    reuse_freed_memory()
    recipe = Recipe(base_network_learns="last_blocks", last_blocks=options.blocks)
    recipe = replace(recipe, data=replace(recipe.data, views=1))
    work = RunContext(Run(options.out / "maps"), emoji_catalogue(), recipe)
    started = time.perf_counter()
    maps = work.features.source
    assert isinstance(maps, FrontSource)
    made_s = time.perf_counter() - started
    live = ImageSource(work.features.loader, views=1)
    embedder = work.new_embedder()
    embedder.trainable("last_blocks", last_blocks=options.blocks)
    train, rng = np.flatnonzero(work.images.is_train), np.random.default_rng(0)
    seconds: dict[str, list[float]] = {"images": [], "maps": []}
    for number in range(-1, options.rounds):
        batches = [(rng.choice(train, BATCH, replace=False), rng.integers(0, 2, BATCH)) for _ in range(options.steps)]
        ways: list[tuple[str, Source]] = [("images", live), ("maps", maps)]
        for name, source in ways[:: 1 if number % 2 else -1]:
            found = seconds_a_step(source, embedder, batches)
            if number >= 0:  # the first round warms up
                seconds[name].append(found)
    ratios = [images / kept for images, kept in zip(*seconds.values(), strict=True)]
    size = sum(path.stat().st_size for path in (work.run.path / "cache").glob(f"maps-*-{options.blocks}-*/view-*.npy"))
    lines = [
        "# A base network of which the last stages learn, fed from images and from kept maps",
        "",
        f"{options.blocks} stages of {recipe.model.base_network} at {recipe.model.image_size_px} px learn, batches of "
        f"{BATCH}, {options.rounds} rounds of {options.steps} steps.",
        "",
        "| | seconds a step, median |",
        "|---|---|",
        f"| from images | {statistics.median(seconds['images']):.2f} |",
        f"| from kept maps | {statistics.median(seconds['maps']):.2f} |",
        "",
        f"Ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}). The maps take "
        f"{size / 1e9:.2f} GB for {len(work.images.catalogue) + len(train):,} images and views"
        f"; having them ready took {made_s:.0f} s in this run.",
        "",
        f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, commit {commit('src', 'bench')}.",
    ]
    write_atomic(RESULT, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
