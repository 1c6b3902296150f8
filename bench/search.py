"""Recall, speed, build time and memory of the index on clustered 256-d vectors, beside FAISS HNSW in the same run.

    python bench/search.py [--rows 100000 1000000] [--queries 200]

Vectors are those of bench/clustered.py. Queries are new images of products in the index; then what is unlike it:
images of a catalogue with other verticals, images mixed half and half with random directions, and random directions.
The filtered queries ask for a brand that 1% of the images have, spread over all verticals, and for the rarest vertical;
nothing is kept between queries, so each costs what the first one does. FAISS gets the least effort that reaches the
index's recall. The index is held in memory and searched by one thread, as `univert serve` does it; FAISS has
all processors. Queries come one at a time. Each size is searched in a process of its own, so that memory is its own. An
index is kept in bench/results/.cache for the next run.

Writes bench/results/search.md; exit 1 beyond the limits.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clustered import CHUNK, SIZE, clustered
from common import commit, cpu_name
from univert.core.files import write_atomic
from univert.search.index import Index, IndexReader
from univert.search.storage import FORMAT_VERSION
from univert.search.writer import IndexWriter

RESULT = Path(__file__).parent / "results" / "search.md"
K = 10
MODEL = "bench"
CACHE = RESULT.parent / ".cache" / "search"
LIMITS = {"recall": 0.99, "recall_unlike": 0.98, "memory_gb": 1.5}
LIMITS_MS = {"p50_ms": {100_000: 8.0, 1_000_000: 20.0}, "filtered_p50_ms": {1_000_000: 15.0}}
LIMITS_CPU_MS = {1_000_000: 6.0}
UNLIKE = ("other", "half", "random")


def nearest(vectors: np.ndarray, queries: np.ndarray, allowed: np.ndarray | None = None) -> list[set[int]]:
    """The `K` nearest of each query, by comparing all."""
    rows = np.arange(len(vectors)) if allowed is None else np.flatnonzero(allowed)
    best = np.full((len(queries), 0), 0.0, np.float32)
    names = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK]
        best = np.concatenate([best, queries @ vectors[some].T], axis=1)
        names = np.concatenate([names, np.broadcast_to(some, (len(queries), len(some)))], axis=1)
        order = np.argpartition(-best, min(K, best.shape[1]) - 1, axis=1)[:, :K]
        best, names = np.take_along_axis(best, order, 1), np.take_along_axis(names, order, 1)
    return [set(row.tolist()) for row in names]


def asked(ask: Callable[[np.ndarray], list[int]], queries: np.ndarray, truth: list[set[int]]) -> dict[str, float]:
    """Recall at `K` and latency, one query at a time, after a warm-up."""
    for query in queries[:10]:
        ask(query)
    seconds, cpu_seconds, shared = [], [], []
    for query, near in zip(queries, truth, strict=True):
        started, cpu_started = time.perf_counter(), time.process_time()
        found = ask(query)
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(time.process_time() - cpu_started)
        shared.append(len(set(found) & near) / len(near))
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    return {
        "recall": float(np.mean(shared)),
        "lowest": float(np.min(shared)),
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "cpu_ms": float(np.median(cpu_seconds)) * 1000,
    }


def parts(vectors: np.ndarray, vertical: np.ndarray, brand: np.ndarray) -> Iterator[tuple[np.ndarray, pa.Table]]:
    for start in range(0, len(vectors), CHUNK):
        stop = min(start + CHUNK, len(vectors))
        columns = {
            "id": [str(row) for row in range(start, stop)],
            "vertical": [f"v{number}" for number in vertical[start:stop]],
            "brand": np.where(brand[start:stop], "rare", "usual").tolist(),
        }
        yield vectors[start:stop], pa.table(columns)


def build(vectors: np.ndarray, vertical: np.ndarray, brand: np.ndarray, path: Path) -> dict[str, float]:
    """Store and publish; the seconds of both."""
    started = time.perf_counter()
    with IndexWriter.create(path, size=SIZE, model_fingerprint=MODEL) as writer:
        writer.upsert_parts(parts(vectors, vertical, brand))
        stored = time.perf_counter()
        writer.publish()
    return {"store_s": stored - started, "build_s": time.perf_counter() - stored}


def faiss_at(recall: float, vectors: np.ndarray, queries: np.ndarray, truth: list[set[int]]) -> dict[str, float]:
    """FAISS HNSW with the least effort that reaches a recall."""
    import faiss

    started = time.perf_counter()
    graph = faiss.IndexHNSWFlat(SIZE, 32)
    graph.hnsw.efConstruction = 100
    graph.add(vectors)
    seconds = time.perf_counter() - started
    figures: dict[str, float] = {}
    for effort in (16, 32, 64, 128, 256, 512, 1024):
        graph.hnsw.efSearch = effort
        figures = asked(lambda query: graph.search(query[None], K)[1][0].tolist(), queries, truth)
        if figures["recall"] >= min(recall, 0.999):
            break
    return {**figures, "build_s": seconds, "ef": effort}


def kinds_of_queries(ask: np.ndarray) -> dict[str, np.ndarray]:
    """Queries like the index, and others ever more unlike it."""
    random = np.random.default_rng(2).standard_normal(ask.shape).astype(np.float32)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    half = ask + random
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    return {"all": ask, "other": clustered(CHUNK, len(ask), seed=1)[1], "half": half, "random": random}


def measure(rows: int, queries: int, peer: bool) -> dict[str, Any]:
    """All figures of one size."""
    vectors, ask, vertical = clustered(rows, queries)
    brand = np.random.default_rng(1).random(rows) < 0.01
    counts = np.bincount(vertical, minlength=20)
    rarest = int(np.argmin(counts + rows * (counts == 0)))
    kinds = kinds_of_queries(ask)
    # the filters, the queries and the rows that may be answered
    asked_for: dict[str, tuple[dict[str, Any], np.ndarray, np.ndarray | None]] = {
        **{name: ({}, kind, None) for name, kind in kinds.items()},
        "brand": ({"brand": "rare"}, ask, brand),
        "vertical": ({"vertical": f"v{rarest}"}, ask, vertical == rarest),
    }
    path = CACHE / f"index-{rows}-{FORMAT_VERSION}"
    built = path / "built.json"
    if not built.exists():
        shutil.rmtree(path, ignore_errors=True)
        built.write_text(json.dumps(build(vectors, vertical, brand, path) | {"peak_gb": _peak_gb()}))
    figures: dict[str, Any] = {"rows": rows, "build": json.loads(built.read_text())}
    figures["vertical_share"] = float(np.mean(vertical == rarest))
    truths = {name: nearest(vectors, some, allowed) for name, (_, some, allowed) in asked_for.items()}
    with tempfile.TemporaryDirectory() as folder:
        for name, (_, some, _) in asked_for.items():
            np.save(Path(folder) / f"{name}.npy", some)
        wheres = {name: [where, [sorted(n) for n in truths[name]]] for name, (where, _, _) in asked_for.items()}
        command = [sys.executable, __file__, "--serve", str(path), folder]
        as_served = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        served = subprocess.run(
            command, check=True, capture_output=True, text=True, input=json.dumps(wheres), env=as_served
        )
    figures |= json.loads(served.stdout)
    if peer:
        figures["faiss"] = faiss_at(figures["all"]["recall"], vectors, ask, truths["all"])
    return figures


def serve(path: Path, folder: Path) -> dict[str, Any]:
    """What a process that only searches sees, its memory included."""
    before = _peak_gb()
    asks = json.loads(sys.stdin.read())
    queries = {name: np.load(folder / f"{name}.npy") for name in asks}
    figures: dict[str, Any] = {}
    with IndexReader.open(path, in_memory=True) as reader:
        index: Index = reader.current()
        for name, (where, truth) in asks.items():

            def ask(query: np.ndarray, where: Any = where) -> list[int]:
                hits = index.search(query, K, where=where, model_fingerprint=MODEL)
                return [int(hit.id) for hit in hits]

            figures[name] = asked(ask, queries[name], [set(one) for one in truth])
        started = time.perf_counter()
        index.search(queries["all"][0], K, model_fingerprint=MODEL, exact=True)
        figures["exact_ms"] = 1000 * (time.perf_counter() - started)
    return {**figures, "memory": {"start_gb": before, "peak_gb": _peak_gb(), "now_gb": _now_gb()}}


def _peak_gb() -> float:
    """The most memory this process has had; the figure of `getrusage` would include its parent's."""
    status = Path("/proc/self/status").read_text()
    return float(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) / 1e6


def _now_gb() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss) / 1e9


def labels(figures: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """What was asked about and the filter, by the name of its figures."""
    return {
        "all": ("images like these", "none"),
        "other": ("images of other verticals", "none"),
        "half": ("half random", "none"),
        "random": ("random directions", "none"),
        "brand": ("images like these", "1%, anywhere"),
        "vertical": ("images like these", f"{figures['vertical_share']:.1%}, in one place"),
    }


def limits_of(rows: int, name: str) -> tuple[float, float, float]:
    """The limits of the recall, the median and the median of the processor's time; infinite for none."""
    if name in UNLIKE:
        return LIMITS["recall_unlike"], math.inf, math.inf
    limit_ms = LIMITS_MS["p50_ms" if name == "all" else "filtered_p50_ms"].get(rows, math.inf)
    return LIMITS["recall"], limit_ms, LIMITS_CPU_MS.get(rows, math.inf) if name == "all" else math.inf


def held(figures: dict[str, Any]) -> bool:
    """Whether the figures of one size are within their limits."""

    def within(name: str) -> bool:
        recall, p50_ms, cpu_ms = limits_of(figures["rows"], name)
        found = figures[name]
        return bool(found["recall"] >= recall and found["p50_ms"] <= p50_ms and found["cpu_ms"] <= cpu_ms)

    return figures["memory"]["peak_gb"] <= LIMITS["memory_gb"] and all(map(within, labels(figures)))


def table(results: list[dict[str, Any]]) -> str:
    """The figures and their limits as Markdown."""
    lines = [
        "# Searching",
        "",
        f"Clustered {SIZE}-d vectors, k = {K}, one query at a time, {os.cpu_count()} processors.",
        "",
        "| rows | asked about | filter | recall | worst | limit | p50 ms | limit | CPU ms | limit | p95 ms |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for figures in results:
        rows = figures["rows"]
        for name, (about, filters) in labels(figures).items():
            found, limits = figures[name], limits_of(rows, name)
            recall, p50_ms, cpu_ms = ("" if math.isinf(limit) else f"{limit:g}" for limit in limits)
            lines.append(
                f"| {rows:,} | {about} | {filters} | {found['recall']:.4f} | {found['lowest']:.1f} | {recall} | "
                f"{found['p50_ms']:.1f} | {p50_ms} | {found['cpu_ms']:.1f} | {cpu_ms} | {found['p95_ms']:.1f} |"
            )
        if "faiss" in figures:
            peer = figures["faiss"]
            lines.append(
                f"| {rows:,} | images like these | none, FAISS HNSW (M 32, ef {peer['ef']}) | {peer['recall']:.4f} | "
                f"{peer['lowest']:.1f} | | {peer['p50_ms']:.1f} | | {peer['cpu_ms']:.1f} | | {peer['p95_ms']:.1f} |"
            )
    lines += ["", "| rows | store s | build s | FAISS build s | one exact search ms | memory GB searching | limit |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for figures in results:
        peer_s = f"{figures['faiss']['build_s']:.0f}" if "faiss" in figures else ""
        built, memory = figures["build"], figures["memory"]
        cells = [
            f"{figures['rows']:,}",
            f"{built['store_s']:.1f}",
            f"{built['build_s']:.1f}",
            peer_s,
            f"{figures['exact_ms']:.0f}",
            f"{memory['now_gb']:.2f} (peak {memory['peak_gb']:.2f}, before {memory['start_gb']:.2f})",
            str(LIMITS["memory_gb"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Machine: {cpu_name()}, {os.cpu_count()} cores; commit {commit('src/univert/search', 'bench')}.",
        "",
        "Made by `python bench/search.py`.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--no-peer", action="store_true", help="leave FAISS out")
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument("--serve", type=Path, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        print(json.dumps(serve(*options.serve)))
        return 0
    if options.measure:
        print(json.dumps(measure(options.measure, options.queries, not options.no_peer)))
        return 0
    results = []
    for rows in options.rows:
        command = [sys.executable, __file__, "--measure", str(rows), "--queries", str(options.queries)]
        command += ["--no-peer"] * options.no_peer
        results.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
        print(json.dumps(results[-1], indent=1), file=sys.stderr)
    print(table(results))
    if not options.no_write:
        write_atomic(RESULT, table(results))
    return 0 if all(map(held, results)) else 1


if __name__ == "__main__":
    sys.exit(main())
