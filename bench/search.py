"""Recall, speed, build time and memory of the index on clustered 256-d vectors, beside FAISS HNSW in the same run.

    python bench/search.py [--rows 100000 1000000] [--queries 200]

Vectors are those of bench/clustered.py. Queries are new images of products in the index. The filtered queries ask for a
brand that 1% of the images have, spread over all verticals, and for the rarest vertical. FAISS gets the least effort
that reaches the index's recall. Both run on as many threads as the machine has processors; queries come one at a time.
Each size is searched in a process of its own, so that memory is its own.

Writes bench/results/search.md; exit 1 beyond the limits.
"""

from __future__ import annotations

import argparse
import json
import os
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
from univert.search.writer import IndexWriter

RESULT = Path(__file__).parent / "results" / "search.md"
K = 10
MODEL = "bench"
LIMITS = {"recall": 0.99, "memory_gb": 1.5}
LIMITS_MS = {"p50_ms": {100_000: 8.0, 1_000_000: 20.0}, "filtered_p50_ms": {1_000_000: 30.0}}


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
    seconds, shared = [], []
    for query, near in zip(queries, truth, strict=True):
        started = time.perf_counter()
        found = ask(query)
        seconds.append(time.perf_counter() - started)
        shared.append(len(set(found) & near) / len(near))
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    return {"recall": float(np.mean(shared)), "p50_ms": float(p50), "p95_ms": float(p95)}


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


def measure(rows: int, queries: int, peer: bool) -> dict[str, Any]:
    """All figures of one size."""
    vectors, ask, vertical = clustered(rows, queries)
    brand = np.random.default_rng(1).random(rows) < 0.01
    rarest = int(np.argmin(np.bincount(vertical, minlength=20) + rows * (np.bincount(vertical, minlength=20) == 0)))
    filters: dict[str, tuple[dict[str, Any], np.ndarray | None]] = {
        "all": ({}, None),
        "brand": ({"brand": "rare"}, brand),
        "vertical": ({"vertical": f"v{rarest}"}, vertical == rarest),
    }
    truths = {name: nearest(vectors, ask, allowed) for name, (_, allowed) in filters.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        figures: dict[str, Any] = {"rows": rows, "build": build(vectors, vertical, brand, path)}
        figures["build"]["peak_gb"] = _peak_gb()
        figures["vertical_share"] = float(np.mean(vertical == rarest))
        np.save(Path(folder) / "queries.npy", ask)
        command = [sys.executable, __file__, "--serve", str(path)]
        served = subprocess.run(command, check=True, capture_output=True, text=True, input=_text(filters, truths))
        figures |= json.loads(served.stdout)
        if peer:
            figures["faiss"] = faiss_at(figures["all"]["recall"], vectors, ask, truths["all"])
    return figures


def serve(path: Path) -> dict[str, Any]:
    """What a process that only searches sees, its memory included."""
    before = _peak_gb()
    asks = json.loads(sys.stdin.read())
    queries = np.load(path.parent / "queries.npy")
    figures: dict[str, Any] = {}
    with IndexReader.open(path) as reader:
        index: Index = reader.current()
        for name, (where, truth) in asks.items():

            def ask(query: np.ndarray, where: Any = where) -> list[int]:
                hits = index.search(query, K, where=where, model_fingerprint=MODEL)
                return [int(hit.id) for hit in hits]

            figures[name] = asked(ask, queries, [set(one) for one in truth])
        started = time.perf_counter()
        index.search(queries[0], K, model_fingerprint=MODEL, exact=True)
        figures["exact_ms"] = 1000 * (time.perf_counter() - started)
    return {**figures, "memory": {"start_gb": before, "peak_gb": _peak_gb(), "now_gb": _now_gb()}}


def _text(filters: dict[str, Any], truths: dict[str, list[set[int]]]) -> str:
    return json.dumps({name: [where, [sorted(n) for n in truths[name]]] for name, (where, _) in filters.items()})


def _peak_gb() -> float:
    """The most memory this process has had; the figure of `getrusage` would include its parent's."""
    status = Path("/proc/self/status").read_text()
    return float(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) / 1e6


def _now_gb() -> float:
    import psutil

    return float(psutil.Process().memory_info().rss) / 1e9


def labels(figures: dict[str, Any]) -> dict[str, str]:
    """What was asked for, by the name of its figures."""
    return {"all": "none", "brand": "1%, anywhere", "vertical": f"{figures['vertical_share']:.1%}, in one place"}


def limit_ms(rows: int, name: str) -> float | None:
    """The limit of the median."""
    return LIMITS_MS["p50_ms" if name == "all" else "filtered_p50_ms"].get(rows)


def held(figures: dict[str, Any]) -> bool:
    """Whether the figures of one size are within their limits."""
    return figures["memory"]["peak_gb"] <= LIMITS["memory_gb"] and all(
        figures[name]["recall"] >= LIMITS["recall"]
        and figures[name]["p50_ms"] <= (limit_ms(figures["rows"], name) or float("inf"))
        for name in labels(figures)
    )


def table(results: list[dict[str, Any]]) -> str:
    """The figures and their limits as Markdown."""
    lines = [
        "# Searching",
        "",
        f"Clustered {SIZE}-d vectors, k = {K}, one query at a time, {os.cpu_count()} processors.",
        "",
        "| rows | filter | recall | limit | p50 ms | limit | p95 ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for figures in results:
        rows = figures["rows"]
        for name, label in labels(figures).items():
            limit = limit_ms(rows, name)
            lines.append(
                f"| {rows:,} | {label} | {figures[name]['recall']:.4f} | {LIMITS['recall']} | "
                f"{figures[name]['p50_ms']:.1f} | {limit or ''} | {figures[name]['p95_ms']:.1f} |"
            )
        if "faiss" in figures:
            peer = figures["faiss"]
            lines.append(
                f"| {rows:,} | none, FAISS HNSW (M 32, ef {peer['ef']}), vectors in memory | {peer['recall']:.4f} | | "
                f"{peer['p50_ms']:.1f} | | {peer['p95_ms']:.1f} |"
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
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        print(json.dumps(serve(options.serve)))
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
