"""ONNX Runtime and its 8-bit form against PyTorch eager, and what 8 bits cost in Recall@1.

    python bench/engine.py [--model MODEL --catalogue CAT] [--rounds 15] [--images 500]

Every round runs all engines in turn on the same prepared images, in one process, with the same number of threads; each
round gives one ratio and the median is reported. PyTorch eager is the model's own forward pass, channels last, in
inference mode, at once over the whole batch. Without a model: the default one with its ImageNet weights, on
emoji. Recall@1: quantised queries against the exact vectors of all other images, paired with exact queries, resampled
by product. Writes bench/results/engine.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from common import emoji_catalogue
from univert.cli.exporting import measure_int8
from univert.core.files import write_atomic
from univert.data.catalogue import Catalogue
from univert.models.embedder import Embedder
from univert.models.runtime.engine import OnnxEngine, prepared_batches
from univert.models.runtime.int8 import CALIBRATION_IMAGES, export_int8
from univert.models.runtime.onnx_export import export_onnx, largest_difference

RESULT = Path(__file__).parent / "results" / "engine.md"
BATCHES = (1, 32)
EAGER, EXACT, INT8 = "PyTorch eager", "ONNX Runtime", "ONNX Runtime, int8"
Run = Callable[[np.ndarray], object]


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """The commit that was measured, marked where the measured files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True).stdout.strip()

    root = Path(__file__).resolve().parent.parent
    changed = git("status", "--porcelain", "--", "src/univert/models", "bench/engine.py")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + (" with changes" if changed else "")


def eager(model: Embedder) -> Run:
    def run(batch: np.ndarray) -> object:
        with torch.inference_mode():
            return model(torch.from_numpy(batch))

    return run


def measure(runs: dict[str, Run], batch: np.ndarray, rounds: int) -> dict[str, list[float]]:
    """Seconds of each engine in each round; small batches are repeated, so that a round is not over in a blink."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    repeats = max(1, 16 // len(batch))
    for number in range(rounds + 2):  # the first two set up threads and kernels
        for name, run in runs.items():
            started = time.perf_counter()
            for _ in range(repeats):
                run(batch)
            if number >= 2:
                seconds[name].append((time.perf_counter() - started) / repeats)
    return seconds


def speed_rows(runs: dict[str, Run], images: np.ndarray, rounds: int) -> tuple[list[str], bool]:
    rows, faster = [], True
    for size in BATCHES:
        seconds = measure(runs, np.ascontiguousarray(images[:size]), rounds)
        for name in runs:
            ratio = statistics.median(slow / fast for slow, fast in zip(seconds[EAGER], seconds[name], strict=True))
            median = statistics.median(seconds[name])
            rows.append(f"| {size} | {name} | {1000 * median:.2f} | {size / median:.0f} | {ratio:.2f} |")
            faster &= name == EAGER or ratio > 1
    return rows, faster


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--catalogue", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=0, help="of the test split for Recall@1; 0 takes all")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = Embedder.from_pretrained(options.model) if options.model else Embedder().eval()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = options.catalogue
        catalogue = Catalogue.open(given) if given else emoji_catalogue()
        started = time.monotonic()
        path = export_onnx(model.save_pretrained(folder / "model"))
        export_s = time.monotonic() - started
        difference = largest_difference(model, path.read_bytes())
        exact = OnnxEngine(path, threads=options.threads)
        train, test = catalogue.select(split="train"), catalogue.select(split="test")
        chosen = np.random.default_rng(0).permutation(len(train))[:CALIBRATION_IMAGES]
        seen = np.concatenate(list(prepared_batches(exact.preprocessing, train, positions=np.sort(chosen).tolist())))
        int8_path = export_int8(path, seen)
        int8 = OnnxEngine(int8_path, threads=options.threads)
        sizes = [file.stat().st_size / 1e6 for file in (path, int8_path)]
        load_before = os.getloadavg()[0]
        rows, faster = speed_rows({EAGER: eager(model), EXACT: exact.run, INT8: int8.run}, seen, options.rounds)
        cost = measure_int8(exact, int8, _first_products(test, options.images))
    base = model.config
    lines = [
        "# Engines: ONNX Runtime against PyTorch",
        "",
        f"{base.base_network} to {base.size} dimensions at {base.image_size_px} px, {options.threads} "
        f"thread{'s' if options.threads > 1 else ''}, {options.rounds} rounds, all engines in turn; the ratio is "
        "PyTorch's time over the engine's, median of rounds.",
        "",
        "| batch | engine | ms | images/s | over PyTorch eager |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"Export and check: {export_s:.0f} s; largest difference of a coordinate from PyTorch's {difference:.1e} "
        f"(limit 1e-4). Files: {sizes[0]:.1f} MB, int8 {sizes[1]:.1f} MB.",
        "",
        f"int8, merged gallery: {cost.text()}.",
        "",
        "To beat: faster than PyTorch eager at batch 1 and 32.",
        "",
        f"Machine: {cpu_name()}, {os.cpu_count()} cores, load before {load_before:.1f}; Python "
        f"{platform.python_version()}, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}. "
        f"Commit {commit()}, {datetime.date.today().isoformat()}.",
        "",
        f"Made by `python bench/engine.py {' '.join(_public(sys.argv[1:]))}`.".replace(" `.", "`."),
        "",
    ]
    print("\n".join(lines))
    write_atomic(RESULT, "\n".join(lines))
    return 0 if faster and cost.recall_at_1.verdict != "worse" else 1


def _first_products(catalogue: Catalogue, images: int) -> Catalogue:
    """About so many images, by verticals, whole products together; all for 0."""
    for count in range(1, len(catalogue.verticals) + 1):
        some = catalogue.select(vertical=catalogue.verticals[:count])
        if images and len(some) >= images:
            return some
    return catalogue


def _public(arguments: list[str]) -> list[str]:
    """The arguments with file names in place of paths."""
    return [Path(argument).name if "/" in argument else argument for argument in arguments]


if __name__ == "__main__":
    sys.exit(main())
