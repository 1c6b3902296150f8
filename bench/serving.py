"""`univert serve` against what it cannot beat: the bare network's throughput, and the bare work of one query.

    python bench/serving.py [--rows 1000000] [--rounds 5] [--seconds 8] [--clients 32]

A real process serves an index of clustered 256-d vectors with the default network; clients are a process of their
own on the same cores. Every round measures, in turn: ONNX Runtime alone on ready batches of 32 with all threads, and
PyTorch; the clients' answered searches a second; one client's latency; and decoding, a forward of one and an index
query alone, in this process. Ratios are taken within a round, medians reported. Writes bench/results/serving.md;
exit 1 below the limits.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from PIL import Image
from sklearn.datasets import load_sample_images

from clustered import CHUNK, clustered
from univert.core.files import write_atomic
from univert.models.embedder import Embedder
from univert.search.reader import IndexReader
from univert.search.writer import IndexWriter
from univert.serving.engine import Engine, load_engine
from univert.serving.photos import PhotoLimits, read_photo

HERE = Path(__file__).parent
RESULT = HERE / "results" / "serving.md"
CACHE = HERE / "results" / ".cache" / "serving"
LIMITS = {"throughput": 0.6, "latency": 1.5, "memory_gb": 1.5}
BATCH, K = 32, 24


def photos(count: int) -> Path:
    """JPEG photos of 640 x 480 px, quality 90: random crops of scikit-learn's two."""
    folder = CACHE / f"photos-{count}"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        whole = Image.fromarray(load_sample_images().images[number % 2])
        side = rng.uniform(0.5, 1) * whole.height
        x, y = rng.uniform(0, whole.width - side), rng.uniform(0, whole.height - side * 0.75)
        crop = whole.resize((640, 480), Image.Resampling.BICUBIC, box=(x, y, x + side, y + side * 0.75))
        buffer = io.BytesIO()
        crop.save(buffer, "JPEG", quality=90)
        write_atomic(folder / f"{number:04d}.jpg", buffer.getvalue())
    return folder


def model_folder() -> Path:
    folder = CACHE / "model"
    if not (folder / "config.json").exists():
        Embedder().eval().save_pretrained(folder)
    return folder


def index_folder(rows: int, engine: Engine) -> Path:
    """An index of the vectors that bench/search.py draws, kept for the next run with the same model."""
    folder = CACHE / f"index-{rows}-{engine.fingerprint[:12]}"
    if folder.exists():
        return folder
    vectors, _, vertical = clustered(rows, 1)
    with IndexWriter.create(folder, size=engine.size, model_fingerprint=engine.fingerprint) as writer:
        for start in range(0, rows, CHUNK):
            which = range(start, min(start + CHUNK, rows))
            columns = {
                "id": [f"item/{row}" for row in which],
                "vertical": [f"vertical {vertical[row]}" for row in which],
                "product": [f"product {row // 8}" for row in which],
                "brand": [f"brand {row % 100}" for row in which],
            }
            writer.append(vectors[start : which.stop], pa.table(columns))
        writer.publish()
    return folder


@contextlib.contextmanager
def service(model: Path, index: Path) -> Iterator[tuple[int, psutil.Process]]:
    """A served index: its port and its process."""
    command = "import univert.cli.serving, univert.cli; univert.cli.main()"
    variables = {"UNIVERT_DRAIN_S": "0", "UNIVERT_QUEUE_SIZE": "256"}
    started = subprocess.Popen(
        [sys.executable, "-c", command, "serve", str(model), str(index), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )
    assert started.stdout is not None
    port = 0
    try:
        for line in started.stdout:
            if found := re.search(r"running on http://[\d.]+:(\d+)", line):
                port = int(found[1])
            if "Application startup complete" in line:
                break
        assert port, "the service did not start"
        time.sleep(1)
        drain = subprocess.Popen(
            ["cat"], stdin=started.stdout, stdout=subprocess.DEVNULL
        )  # its log must not fill up
        yield port, psutil.Process(started.pid)
    finally:
        started.terminate()
        started.wait(60)
        drain.wait(10)


def load(port: int, clients: int, seconds: float, folder: Path) -> dict[str, Any]:
    command = [
        sys.executable,
        str(HERE / "serving_load.py"),
        str(port),
        str(clients),
        str(seconds),
        str(folder),
    ]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    if set(found["statuses"]) != {"200"}:
        raise SystemExit(f"not all requests were answered: {found['statuses']}")
    return found


def a_second(run: Callable[[], object], each: int, seconds: float) -> float:
    """How many a second `run` does, that does `each` at a time."""
    run()
    started, done = time.perf_counter(), 0
    while (took := time.perf_counter() - started) < seconds:
        run()
        done += each
    return done / took


def bare_ms(engine: Engine, index: IndexReader, contents: list[bytes]) -> list[float]:
    """The work of each photo alone: decode, forward, query."""
    limits, took = PhotoLimits(), []
    for content in contents:
        started = time.perf_counter()
        photo = read_photo(content, limits, detail_px=engine.image_size_px)
        vector = engine.run(engine.prepare(photo.rgb)[None])[0]
        index.current().search(vector, K, model_fingerprint=engine.fingerprint)
        took.append(1000 * (time.perf_counter() - started))
    return took


def measure(options: argparse.Namespace) -> tuple[list[dict[str, float]], float]:
    """The figures of each round, and the peak memory of the service in GB."""
    cores = len(os.sched_getaffinity(0))
    engine = load_engine(model_folder(), "onnx", threads=cores)
    eager = load_engine(model_folder(), "torch", threads=cores)
    folder = photos(options.photos)
    contents = [path.read_bytes() for path in sorted(folder.iterdir())]
    squares = [
        engine.prepare(read_photo(content, PhotoLimits(), detail_px=engine.image_size_px).rgb)
        for content in contents
    ]
    batch = np.stack((squares * BATCH)[:BATCH])
    index_path = index_folder(options.rows, engine)
    rounds = []
    with service(model_folder(), index_path) as (port, process), IndexReader.open(index_path) as index:
        for number in range(options.rounds):
            part_s = options.seconds / 4
            found = {
                f"{name}, {size} at a time": a_second(partial(run, batch[:size]), size, part_s)
                for size in (1, BATCH)
                for name, run in (("ONNX Runtime", engine.run), ("PyTorch", eager.run))
            }
            many = load(port, options.clients, options.seconds, folder)
            found["searches"] = many["answers"] / many["seconds"]
            found["p50_ms"] = statistics.median(many["latencies_ms"])
            found["p99_ms"] = many["latencies_ms"][int(0.99 * (len(many["latencies_ms"]) - 1))]
            found["one_p50_ms"] = statistics.median(
                load(port, 1, options.seconds / 2, folder)["latencies_ms"]
            )
            found["bare_p50_ms"] = statistics.median(bare_ms(engine, index, contents))
            found["load"] = os.getloadavg()[0]
            rounds.append(found)
            print(f"round {number + 1}: {found}", file=sys.stderr)
        memory = peak_gb(process)
    return rounds, memory


def peak_gb(process: psutil.Process) -> float:
    """The most memory that the service's process has held."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e9


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--photos", type=int, default=64)
    options = parser.parse_args()
    rounds, memory = measure(options)

    def middle(name: str) -> float:
        return statistics.median(one[name] for one in rounds)

    loads = ", ".join(f"{one['load']:.1f}" for one in rounds)
    bare = f"ONNX Runtime, {BATCH} at a time"
    throughput = statistics.median(one["searches"] / one[bare] for one in rounds)
    latency = statistics.median(one["one_p50_ms"] / one["bare_p50_ms"] for one in rounds)
    lines = [
        "# The service against the bare work",
        "",
        f"{options.rows:,} vectors of 256-d, 640 x 480 px JPEG photos, the default network at 128 px; rounds: "
        f"{options.rounds}, all sides in turn, clients on the same cores.",
        "",
        "| what | figure | to hold |",
        "|---|---|---|",
        f"| bare network, {bare} | {middle(bare):.0f} images/s | |",
        f"| `POST /search`, {options.clients} clients | {middle('searches'):.0f} a second, "
        f"p50 {middle('p50_ms'):.0f} ms, p99 {middle('p99_ms'):.0f} ms | |",
        f"| over the bare network | {throughput:.2f} | >= {LIMITS['throughput']} |",
        f"| one client, p50 | {middle('one_p50_ms'):.1f} ms | |",
        f"| decode + forward + query alone, p50 | {middle('bare_p50_ms'):.1f} ms | |",
        f"| the first over the second | {latency:.2f} | <= {LIMITS['latency']} |",
        *(
            f"| ONNX Runtime over PyTorch, {size} at a time | "
            f"{middle(f'ONNX Runtime, {size} at a time') / middle(f'PyTorch, {size} at a time'):.2f} | > 1 |"
            for size in (1, BATCH)
        ),
        f"| memory of the service, peak | {memory:.2f} GB | <= {LIMITS['memory_gb']} |",
        "",
        f"Machine: {platform.processor() or platform.machine()}, {os.cpu_count()} cores, load at the rounds' ends "
        f"{loads}; Python {platform.python_version()}.",
        "",
        f"Made by `python bench/serving.py --rows {options.rows} --rounds {options.rounds} "
        f"--seconds {options.seconds:g} --clients {options.clients}`.",
        "",
    ]
    print("\n".join(lines))
    write_atomic(RESULT, "\n".join(lines))
    held = (
        throughput >= LIMITS["throughput"] and latency <= LIMITS["latency"] and memory <= LIMITS["memory_gb"]
    )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
