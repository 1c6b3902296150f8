"""`Embedder.embed`, image files on disk to vectors, against the bare network's forward on ready tensors.

    python bench/embed.py [--images 768] [--rounds 7]

Every round runs all sides in turn, on the same images, in one process with the same threads, channels last;
each round gives one ratio and the median is reported. The bare network is the base network alone on
normalised float tensors in memory, at the faster of two batch sizes: what is asked of `embed`, and what
`embed` uses inside. The images: (a) the emoji catalogue's, written to disk as they are (WebP with alpha, 64
to 72 px), once as files and once as a catalogue; (b) 640 x 480 px JPEGs of quality 90, random crops of
scikit-learn's two photos. Writes bench/results/embed.md.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from common import EMOJI, commit, cpu_name
from univert.core.files import write_atomic
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.readers import open_source
from univert.data.rows import SourceRow
from univert.models.embedder import Embedder

RESULT = Path(__file__).parent / "results" / "embed.md"
BATCH, SLICE = 64, 16
LEAST_RATIO = 0.8
BARE = "the bare network, tensors in memory"


def emoji_files(folder: Path, count: int) -> list[Path]:
    paths = []
    for number, row in enumerate(itertools.islice(open_source(EMOJI), count)):
        assert isinstance(row, SourceRow)
        assert row.image is not None
        paths.append(folder / f"{number:05d}.webp")
        paths[-1].write_bytes(row.image)
    return paths


def some_emoji(folder: Path, count: int) -> Catalogue:
    build_catalogue(itertools.islice(open_source(EMOJI), count), folder / "catalogue")
    return Catalogue.open(folder / "catalogue")


def photo_files(folder: Path, count: int) -> list[Path]:
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        photo = photos[number % len(photos)]
        width = rng.uniform(0.5, 1) * min(photo.width, photo.height * 4 / 3)
        left, top = rng.uniform(0, photo.width - width), rng.uniform(0, photo.height - width * 0.75)
        box = (left, top, left + width, top + width * 0.75)
        paths.append(folder / f"{number:05d}.jpg")
        photo.resize((640, 480), Image.Resampling.BICUBIC, box=box).save(paths[-1], quality=90)
    return paths


def bare_forward(model: Embedder, paths: Sequence[Path], batch: int) -> Callable[[], object]:
    squares = [model.preprocessing(Image.open(path).convert("RGB")) for path in paths]
    pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 255
    ready = ((pixels - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode():
            for images in ready.split(batch):
                model.base_network(images)

    return run


def measure(jobs: dict[str, Callable[[], object]], rounds: int) -> tuple[dict[str, list[float]], list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    loads = []
    for job in jobs.values():
        job()  # the first call sets up threads and kernels
    for number in range(rounds):
        loads.append(os.getloadavg()[0])
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - start)
            print(f"round {number + 1}: {name}: {seconds[name][-1]:.2f} s", file=sys.stderr)
    return seconds, loads


def compare(
    title: str, model: Embedder, paths: list[Path], catalogue: Catalogue | None, rounds: int
) -> tuple[list[str], dict[str, float], list[float]]:
    """The table rows, the ratios and the loads of one set of images."""
    bare = {f"{BARE}, {size} at a time": bare_forward(model, paths, size) for size in (BATCH, SLICE)}
    jobs: dict[str, Callable[[], object]] = {**bare, "embed(paths)": lambda: model.embed(paths, batch_size=BATCH)}
    if catalogue is not None:
        assert len(catalogue) == len(paths)
        jobs["embed_catalogue(catalogue)"] = lambda: model.embed_catalogue(catalogue, batch_size=BATCH)
    seconds, loads = measure(jobs, rounds)
    fastest = [min(times) for times in zip(*(seconds[name] for name in bare), strict=True)]
    ratios = {
        name: statistics.median(best / took for best, took in zip(fastest, seconds[name], strict=True)) for name in jobs
    }
    rows = [
        f"| {title} | {name} | {len(paths) / statistics.median(seconds[name]):.0f} | {ratios[name]:.2f} |"
        for name in jobs
    ]
    return rows, {name: ratio for name, ratio in ratios.items() if name not in bare}, loads


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    measured_commit = commit("src/univert/models", "src/univert/data", "bench/embed.py")
    model = Embedder().eval()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        emoji, catalogue = emoji_files(folder, options.images), some_emoji(folder, options.images)
        rows, held, loads = compare("emoji, WebP", model, emoji, catalogue, options.rounds)
        photos = photo_files(folder, options.images)
        more_rows, _, more_loads = compare("photos, JPEG", model, photos, None, options.rounds)
    lines = [
        "# Embedding image files against the bare network",
        "",
        f"{options.images} images to 128 px, efficientnet_lite0, batch size {BATCH}, float32, channels last; rounds: "
        f"{options.rounds}, all sides in turn. The ratio is images a second over the faster of the two bare rows.",
        "",
        "| images | what | images/s (median) | ratio (median of rounds) |",
        "|---|---|---|---|",
        *rows,
        *more_rows,
        "",
        f"To beat: {LEAST_RATIO:g} on the emoji. Their files are 64 to 72 px WebP with alpha; the photos are "
        "640 x 480 px JPEG of quality 90.",
        "",
        f"Machine: {cpu_name()}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, load when the rounds "
        f"began {', '.join(f'{load:.1f}' for load in (*loads, *more_loads))}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, Pillow {PIL.__version__}. "
        f"Commit {measured_commit}, {datetime.date.today().isoformat()}.",
        "",
        f"Made by `python bench/embed.py --images {options.images} --rounds {options.rounds}`.",
        "",
    ]
    print("\n".join(lines))
    write_atomic(RESULT, "\n".join(lines))
    return 0 if min(held.values()) >= LEAST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
