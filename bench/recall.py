"""Recall@1,2,4,8 of a Stanford-Online-Products-sized test set: time over the bare matrix product, and memory.

    python bench/recall.py [--quick] [--rounds 3]

Both sides run in turn in one process, on the same vectors, in the same chunks, in float32; each round gives one
ratio and the median is reported. The bare product only fills a buffer, which is the least any exact method that
looks at every pair can do. Extra memory is the peak of the process's resident memory during the call, over that
just before it. Writes bench/results/recall.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import torch

from common import commit, cpu_name
from univert.core.files import write_atomic
from univert.metrics.ranking import rank_queries, recall_at_k

RESULT = Path(__file__).parent / "results" / "recall.md"
QUERY_CHUNK, GALLERY_CHUNK = 1024, 8192  # the defaults of rank_queries
MOST_RATIO, MOST_EXTRA_GB = 2.0, 1.0


def make_set(rows: int, size: int, seed: int = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Unit vectors of products with 2 to 12 images, as near to each other as a fair model puts them, shuffled."""
    rng = np.random.default_rng(seed)
    images = np.repeat(np.arange(rows), rng.integers(2, 13, rows))[: rows - 1]
    labels = rng.permutation(np.append(images, images[-1]))
    vectors = rng.standard_normal((int(labels.max()) + 1, size), dtype=np.float32)[labels]
    vectors += np.float32(2.6) * rng.standard_normal(vectors.shape, dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors, labels


def bare_product(vectors: npt.NDArray[np.float32]) -> None:
    """Fill a chunk of the similarity matrix after the other and look at none."""
    rows = torch.from_numpy(vectors)
    buffer = torch.empty(QUERY_CHUNK * GALLERY_CHUNK)
    with torch.inference_mode():
        for queries in rows.split(QUERY_CHUNK):
            for gallery in rows.split(GALLERY_CHUNK):
                block = buffer[: len(queries) * len(gallery)].view(len(queries), len(gallery))
                torch.mm(queries, gallery.T, out=block)


def measured(job: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and peak extra resident memory in GB (1e9 bytes)."""
    process = psutil.Process()
    before = process.memory_info().rss
    peak, done = before, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    try:
        job()
    finally:
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
    return seconds, (peak - before) / 1e9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="12,000 rows instead of 60,502; nothing is written")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    measured_commit = commit("src/univert/evaluation/ran*.py", "bench/recall.py")
    rows, size = (12_000 if options.quick else 60_502), 512
    vectors, labels = make_set(rows, size)
    bare_product(vectors[:QUERY_CHUNK])  # the first product sets up the threads
    recall: dict[int, float] = {}
    jobs: dict[str, Callable[[], object]] = {
        "bare matrix product": lambda: bare_product(vectors),
        "Recall@1,2,4,8": lambda: recall.update(recall_at_k(vectors, labels)),
        "Recall@1,2,4,8 and MAP@R": lambda: rank_queries(vectors, labels),
    }
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    extra: dict[str, float] = dict.fromkeys(jobs, 0.0)
    loads = []
    for number in range(options.rounds):
        loads.append(os.getloadavg()[0])
        for name, job in jobs.items():
            took, memory = measured(job)
            seconds[name].append(took)
            extra[name] = max(extra[name], memory)
            print(f"round {number + 1}: {name}: {took:.2f} s, {memory:.3f} GB", file=sys.stderr)
    bare = seconds["bare matrix product"]
    ratios = {name: statistics.median(a / b for a, b in zip(took, bare, strict=True)) for name, took in seconds.items()}
    lines = [
        "# Exact retrieval metrics against the bare matrix product",
        "",
        f"{rows:,} x {size} float32 unit vectors of {len(np.unique(labels)):,} products, leave-one-out; blocks of "
        f"{QUERY_CHUNK} x {GALLERY_CHUNK}; rounds: {options.rounds}, the sides in turn.",
        "",
        "| what | seconds (median) | over the bare product (median of rounds) | peak extra memory, GB |",
        "|---|---|---|---|",
        *(
            f"| {name} | {statistics.median(seconds[name]):.2f} | {ratios[name]:.2f} | {extra[name]:.2f} |"
            for name in jobs
        ),
        "",
        f"To beat: at most {MOST_RATIO:g} times the bare product and {MOST_EXTRA_GB:g} GB. "
        f"Recall found: {', '.join(f'@{k} {value:.4f}' for k, value in recall.items())}.",
        "",
        f"Machine: {cpu_name()}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, load when the rounds "
        f"began {', '.join(f'{load:.1f}' for load in loads)}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, NumPy {np.__version__}. "
        f"Commit {measured_commit}, {datetime.date.today().isoformat()}.",
        "",
        f"Made by `python bench/recall.py --rounds {options.rounds}`.",
        "",
    ]
    print("\n".join(lines))
    if not options.quick:
        write_atomic(RESULT, "\n".join(lines))
    held = ratios["Recall@1,2,4,8"] <= MOST_RATIO and extra["Recall@1,2,4,8"] <= MOST_EXTRA_GB
    print("both limits held" if held else "a limit was missed", file=sys.stderr)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
