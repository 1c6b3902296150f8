"""What keeping the maps of frozen layers saves where the last stages of the base network learn.

    python bench/learning_base_network.py [--rounds 5] [--steps 4] [--blocks 2] [--out .work/bench-partial]
    python bench/learning_base_network.py --gpu

Takes training steps (load a batch, forward, backward) on the emoji in turn from images and from kept maps, on the same
batches, and reports the ratio within each round. Writes bench/results/learning-base-network.md. With `--gpu` all of the
network learns, in float32 and, as the training does it, in mixed precision; it writes learning-base-network-gpu.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from common import commit, cpu_name, emoji_catalogue
from univert.core.allocator import reuse_freed_memory
from univert.core.files import write_atomic
from univert.core.run import Run
from univert.models.config import BaseNetworkLearns
from univert.models.embedder import Embedder
from univert.training.recipe import DataConfig, Recipe
from univert.training.run_context import RunContext
from univert.training.sources import ImageSource, Source

RESULTS = Path(__file__).parent / "results"
BATCH = 128


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of feeding a base network that learns, and what its row says."""

    title: str
    source: Source
    mixed: bool = False


def seconds_a_step(way: Way, embedder: Embedder, batches: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Wall time of a training step without the optimiser."""
    embedder.train()
    way.source.prefetch(*batches[0])
    started = time.perf_counter()
    for place, (positions, views) in enumerate(batches):
        embedder.zero_grad()
        with torch.autocast(embedder.device.type, torch.bfloat16, enabled=way.mixed):
            outputs = way.source.embed(embedder, positions, views)
        if place + 1 < len(batches):
            way.source.prefetch(*batches[place + 1])  # as the training does: the next batch is decoded meanwhile
        outputs.float()[:, 0].sum().backward()
    if embedder.device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / len(batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="steps a round and way")
    parser.add_argument("--blocks", type=int, default=2, help="stages that learn")
    parser.add_argument("--gpu", action="store_true", help="all of the network learns, on a GPU")
    parser.add_argument("--out", type=Path, default=Path(".work/bench-partial"))
    options = parser.parse_args()
    reuse_freed_memory()
    learns: BaseNetworkLearns = "all" if options.gpu else "last_blocks"
    blocks = {} if options.gpu else {"last_blocks": options.blocks}
    recipe = Recipe(base_network_learns=learns, data=DataConfig(views=1), **blocks)
    device = "cuda" if options.gpu else "cpu"
    work = RunContext(Run(options.out / "maps"), emoji_catalogue(), recipe, device=device)
    live = ImageSource(work.features.loader, views=1)
    started = time.perf_counter()
    if options.gpu:
        ways = [Way(title="float32", source=live), Way(title="bfloat16, mixed", source=live, mixed=True)]
    else:
        ways = [Way(title="from images", source=live), Way(title="from kept maps", source=work.features.source)]
    made_s = time.perf_counter() - started
    embedder = work.new_embedder()
    embedder.trainable(learns, options.blocks)
    train, rng = np.flatnonzero(work.images.is_train), np.random.default_rng(0)
    seconds: list[list[float]] = [[], []]
    for number in range(-1, options.rounds):
        batches = [(rng.choice(train, BATCH, replace=False), rng.integers(0, 2, BATCH)) for _ in range(options.steps)]
        for place in (0, 1)[:: 1 if number % 2 else -1]:
            found = seconds_a_step(ways[place], embedder, batches)
            if number >= 0:  # the first round warms up
                seconds[place].append(found)
    ratios = [first / second for first, second in zip(*seconds, strict=True)]
    learning = "All" if options.gpu else f"The last {options.blocks} stages"
    machine = torch.cuda.get_device_name() if options.gpu else f"{cpu_name()}, {torch.get_num_threads()} threads"
    lines = [
        f"# A base network that learns: {' against '.join(way.title for way in ways)}",
        "",
        f"{learning} of {recipe.model.base_network} at {recipe.model.image_size_px} px learn, batches of {BATCH}, "
        f"{options.rounds} rounds of {options.steps} steps.",
        "",
        "| | seconds a step, median |",
        "|---|---|",
        *(f"| {way.title} | {statistics.median(taken):.3f} |" for way, taken in zip(ways, seconds, strict=True)),
        "",
        f"Ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}).",
    ]
    if not options.gpu:
        maps = (work.run.path / "cache").glob(f"maps-*-{options.blocks}-*/view-*.npy")
        size = sum(path.stat().st_size for path in maps)
        lines[-1] += (
            f" The maps take {size / 1e9:.2f} GB for {len(work.images.catalogue) + len(train):,} images and views; "
            f"having them ready took {made_s:.0f} s in this run."
        )
    lines += ["", f"{machine}, torch {torch.__version__}, commit {commit('src', 'bench')}."]
    write_atomic(RESULTS / f"learning-base-network{'-gpu' * options.gpu}.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
