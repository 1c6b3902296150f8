"""`univert serve` against the same work without a service, in one run.

    OPENBLAS_NUM_THREADS=1 python bench/serving.py [--rows 1000000] [--image-sizes-px 128 224] [--rounds 3]
        [--seconds 6] [--clients 32]

A real process serves an index of 256-d vectors (bench/clustered.py) with the default network; clients are a process of
their own on the same cores. Every round measures, in turn: ONNX Runtime alone on ready batches of 32 with all threads,
and PyTorch; the work of 32 photos together without a service (decoding, forward, search in memory, naming, in this
process and on all cores); the clients' answered searches a second; one client's latency; and the work of one photo
alone. At the end, filters that were never asked for before. Ratios are taken within a round, medians reported. Writes
bench/results/serving.md; exit 1 beyond the limits. Models and indexes are kept in bench/results/.cache.
`univert serve` sets OPENBLAS_NUM_THREADS for its workers, so this process must have it, too.
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
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from PIL import Image
from sklearn.datasets import load_sample_images

from clustered import CHUNK, clustered
from common import commit, cpu_name
from univert.core.files import write_atomic
from univert.data.decode import decode_rgb
from univert.identity.vote import ATTRIBUTES, CALIBRATION_FILE, AttributeCalibration, Calibration, identify
from univert.models.embedder import Embedder, EmbedderConfig
from univert.models.runtime.engine import Engine, load_engine
from univert.models.runtime.onnx_export import export_onnx
from univert.search.index import IndexReader
from univert.search.storage import FORMAT_VERSION
from univert.search.writer import IndexWriter

HERE = Path(__file__).parent
RESULT = HERE / "results" / "serving.md"
CACHE = HERE / "results" / ".cache" / "serving"
LIMITS = {"throughput": 0.8, "latency": 1.25, "filter_ms": 15.0, "memory_gb": 1.5}
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


def model_folder(image_size_px: int) -> Path:
    """The default network as it comes, for images of some size."""
    folder = CACHE / f"model-{image_size_px}"
    if not (folder / "config.json").exists():
        Embedder(EmbedderConfig(image_size_px=image_size_px)).eval().save_pretrained(folder)
    if not (folder / "model.onnx").exists():
        export_onnx(folder)
    return folder


def index_folder(rows: int, engine: Engine) -> Path:
    """An index of the vectors that bench/search.py draws, kept for the next run with the same model."""
    folder = CACHE / f"index-{rows}-{engine.fingerprint[:12]}-{FORMAT_VERSION}"
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
            writer.upsert(vectors[start : which.stop], pa.table(columns))
        writer.publish()
    # Any numbers will do: naming what is shown takes as long whatever comes out.
    attribute = AttributeCalibration(temperature=0.05, weights=(0.0, 1.0, -8.0, 0.0, 0.0), precision=0.9, threshold=0.5)
    Calibration(
        model_fingerprint=engine.fingerprint,
        engine="onnx",
        neighbours=K,
        attributes=dict.fromkeys(ATTRIBUTES, attribute),
    ).save(folder / CALIBRATION_FILE)
    return folder


@contextlib.contextmanager
def service(model: Path, index: Path) -> Iterator[tuple[int, psutil.Process]]:
    """A served index: its port and its worker's process."""
    command = "import univert.cli.serving, univert.cli; univert.cli.main()"
    variables = {"UNIVERT_DRAIN_S": "0", "UNIVERT_QUEUE_SIZE": "256"}
    started = subprocess.Popen(
        [sys.executable, "-c", command, "serve", str(model), str(index), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    )
    assert started.stdout is not None
    port, drain = 0, None
    try:
        for line in started.stdout:
            event = json.loads(line)
            if event["event"] == "listening":
                port = int(event["address"].rpartition(":")[2])
            if event["event"] == "ready":
                break
        if not port:
            raise SystemExit("the service did not start")
        time.sleep(1)
        worker = psutil.Process(event["process"])
        drain = subprocess.Popen(["cat"], stdin=started.stdout, stdout=subprocess.DEVNULL)  # its log must not fill up
        yield port, worker
    finally:
        started.terminate()
        started.wait(60)
        if drain is not None:
            drain.wait(10)


def load(port: int, clients: int, seconds: float, folder: Path) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "serving_load.py"), str(port), str(clients), str(seconds), str(folder)]
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


def square(engine: Engine, content: bytes) -> np.ndarray:
    """A photo as the network sees it."""
    return engine.prepare(decode_rgb(content, draft_px=engine.image_size_px))


def bare_ms(engine: Engine, index: IndexReader, naming: Calibration, contents: list[bytes]) -> list[float]:
    """The work of each photo alone: decode, forward, search, naming."""
    took, cores = [], len(os.sched_getaffinity(0))
    for content in contents:
        started = time.perf_counter()
        vector = engine.run(square(engine, content)[None])[0]
        found = index.current().search_many(vector[None], K, model_fingerprint=engine.fingerprint, threads=cores)
        identify(found[0], naming)
        took.append(1000 * (time.perf_counter() - started))
    return took


def all_cores(
    engine: Engine, index: IndexReader, naming: Calibration, contents: list[bytes], pool: ThreadPoolExecutor
) -> None:
    """The work of a batch of photos without a service: all together, on all cores."""
    vectors = engine.run(np.stack(list(pool.map(partial(square, engine), contents))))
    cores = len(os.sched_getaffinity(0))
    for hits in index.current().search_many(vectors, K, model_fingerprint=engine.fingerprint, threads=cores):
        identify(hits, naming)


def filters_ms(engine: Engine, index: IndexReader) -> float:
    """A search with a filter that was never asked for before, median over 40 brands."""
    took = []
    for number, vector in enumerate(clustered(CHUNK, 40)[1]):
        started = time.perf_counter()
        index.current().search(vector, K, where={"brand": f"brand {number}"}, model_fingerprint=engine.fingerprint)
        took.append(1000 * (time.perf_counter() - started))
    return statistics.median(took)


def measure(options: argparse.Namespace, image_size_px: int) -> tuple[list[dict[str, float]], float, float]:
    """The figures of each round, the peak memory of the service in GB, and the milliseconds of a new filter."""
    cores = len(os.sched_getaffinity(0))
    model = model_folder(image_size_px)
    engine = load_engine(model, "onnx", threads=cores)
    eager = load_engine(model, "torch", threads=cores)
    folder = photos(options.photos)
    contents = [path.read_bytes() for path in sorted(folder.iterdir())]
    squares = [square(engine, content) for content in contents]
    batch = np.stack((squares * BATCH)[:BATCH])
    index_path = index_folder(options.rows, engine)
    naming = Calibration.load(index_path / CALIBRATION_FILE)
    rounds = []
    with (
        service(model, index_path) as (port, process),
        IndexReader.open(index_path) as index,
        ThreadPoolExecutor(cores) as pool,
    ):
        for number in range(options.rounds):
            part_s = options.seconds / 4
            found = {
                f"{name}, {size} at a time": a_second(partial(run, batch[:size]), size, part_s)
                for size in (1, BATCH)
                for name, run in (("ONNX Runtime", engine.run), ("PyTorch", eager.run))
            }
            together = partial(all_cores, engine, index, naming, (contents * BATCH)[:BATCH], pool)
            found["work"] = a_second(together, BATCH, part_s)
            many = load(port, options.clients, options.seconds, folder)
            found["searches"] = many["answers"] / many["seconds"]
            found["p50_ms"] = statistics.median(many["latencies_ms"])
            found["p99_ms"] = many["latencies_ms"][int(0.99 * (len(many["latencies_ms"]) - 1))]
            found["one_p50_ms"] = statistics.median(load(port, 1, options.seconds / 2, folder)["latencies_ms"])
            found["bare_p50_ms"] = statistics.median(bare_ms(engine, index, naming, contents))
            found["load"] = os.getloadavg()[0]
            rounds.append(found)
            print(f"{image_size_px} px, round {number + 1}: {found}", file=sys.stderr)
        memory, filter_ms = peak_gb(process), filters_ms(engine, index)
    return rounds, memory, filter_ms


def peak_gb(process: psutil.Process) -> float:
    """The most memory that the process of the service's worker has held."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--image-sizes-px", type=int, nargs="+", default=[128, 224])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--photos", type=int, default=64)
    options = parser.parse_args()
    measured = [measure(options, size) for size in options.image_sizes_px]
    bare = f"ONNX Runtime, {BATCH} at a time"

    def row(label: str, cell: Callable[[list[dict[str, float]]], str], limit: str = "") -> str:
        return f"| {label} | {' | '.join(cell(rounds) for rounds, _, _ in measured)} | {limit} |"

    def figure(name: str, form: str) -> Callable[[list[dict[str, float]]], str]:
        return lambda rounds: form.format(middle(rounds, name))

    def ratio(name: str, over: str) -> Callable[[list[dict[str, float]]], str]:
        return lambda rounds: f"{middle(rounds, name, over):.2f}"

    loads = ", ".join(f"{one['load']:.1f}" for rounds, _, _ in measured for one in rounds)
    lines = [
        "# The service against the bare work",
        "",
        f"{options.rows:,} vectors of 256-d, 640 x 480 px JPEG photos, the default network; {options.rounds} rounds a "
        "column, all sides in turn, clients on the same cores.",
        "",
        f"| what | {' | '.join(f'{size} px' for size in options.image_sizes_px)} | to hold |",
        f"|---|{'---|' * len(measured)}---|",
        row(f"bare network, {bare}, images a second", figure(bare, "{:.0f}")),
        row(
            "decoding, forward, search, naming of 32 at a time without a service, photos a second",
            figure("work", "{:.0f}"),
        ),
        row(f"`POST /search`, {options.clients} clients, a second", figure("searches", "{:.0f}")),
        row("its p50, ms", figure("p50_ms", "{:.0f}")),
        row("its p99, ms", figure("p99_ms", "{:.0f}")),
        row("throughput over the bare network", ratio("searches", bare)),
        row("the work without a service over the bare network", ratio("work", bare)),
        row("throughput over the work without a service", ratio("searches", "work"), f">= {LIMITS['throughput']}"),
        row("one client, p50, ms", figure("one_p50_ms", "{:.1f}")),
        row("the same work of one alone, p50, ms", figure("bare_p50_ms", "{:.1f}")),
        row("the first over the second", ratio("one_p50_ms", "bare_p50_ms"), f"<= {LIMITS['latency']}"),
        *(
            row(
                f"ONNX Runtime over PyTorch, {size} at a time",
                ratio(f"ONNX Runtime, {size} at a time", f"PyTorch, {size} at a time"),
                "> 1",
            )
            for size in (1, BATCH)
        ),
        f"| a search with a filter never asked for before, ms | "
        f"{' | '.join(f'{filter_ms:.1f}' for _, _, filter_ms in measured)} | <= {LIMITS['filter_ms']:g} |",
        f"| memory of the service, peak, GB | {' | '.join(f'{memory:.2f}' for _, memory, _ in measured)} | "
        f"<= {LIMITS['memory_gb']} |",
        "",
        f"Machine: {cpu_name()}, {os.cpu_count()} cores, load at the rounds' ends {loads}; "
        f"Python {platform.python_version()}; commit {commit('src', 'bench/serving*.py')}.",
        "",
        f"Made by `python bench/serving.py --rows {options.rows} --image-sizes-px "
        f"{' '.join(map(str, options.image_sizes_px))} --rounds {options.rounds} --seconds {options.seconds:g} "
        f"--clients {options.clients}`.",
        "",
    ]
    print("\n".join(lines))
    write_atomic(RESULT, "\n".join(lines))
    held = all(
        middle(rounds, bare, f"PyTorch, {BATCH} at a time") > 1
        and middle(rounds, "ONNX Runtime, 1 at a time", "PyTorch, 1 at a time") > 1
        and middle(rounds, "searches", "work") >= LIMITS["throughput"]
        and middle(rounds, "one_p50_ms", "bare_p50_ms") <= LIMITS["latency"]
        and memory <= LIMITS["memory_gb"]
        and filter_ms <= LIMITS["filter_ms"]
        for rounds, memory, filter_ms in measured
    )
    return 0 if held else 1


def middle(rounds: list[dict[str, float]], name: str, over: str | None = None) -> float:
    """The median of a figure over the rounds, or of its ratio to another of the same round."""
    return statistics.median(one[name] / (one[over] if over else 1) for one in rounds)


if __name__ == "__main__":
    sys.exit(main())
