"""The losses against their peers and the limit: time, memory, and what half precision does to them.

    python bench/losses.py [--rounds 9] [--case NAME ...] [--gpu] [--keep-memory]

Peers and limit run in turn in the same process, on the same values, and their losses are checked to be the same;
after a round that does not count, each round gives one ratio, and the median is reported. "Three bare products" are
the matrix products that exact gradients cannot do without (logits, gradient of the embeddings, gradient of the
proxies), with nothing between them, in one piece or in chunks, whichever is faster. Extra memory is the peak during
one step over that before it, in a process of its own for each, gradients included. --keep-memory lets the C library
keep freed memory, for all alike; by default it is left as it is. On a GPU the floor is the larger of arithmetic and
traffic, at the rates that a large product and a large copy reach in the same run. Writes bench/results/losses.md, or
losses_gpu.md.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from common import commit, cpu_name
from loss_steps import (
    BARE,
    BARE_CHUNKS,
    NCA_CASES,
    OURS,
    PEER,
    SCALE,
    SENTENCES,
    TRIPLET_CASES,
    contenders,
    make_step,
    peer,
)
from univert.core.allocator import reuse_freed_memory
from univert.core.files import write_atomic
from univert.losses.proxy_nca_loss import ProxyNCALoss

RESULTS = Path(__file__).parent / "results"
MILLION = {
    "sampled": "10,000 sampled, sparse, SparseAdam",
    "sampled-adagrad": "10,000 sampled, sparse, Adagrad",
    "all": "all, dense, SGD",
}


def timed(case: str, rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of every round, each contender in turn, another one first each time."""
    steps = {name: make_step(case, name, device) for name in contenders(case)}
    values = {name: step() for name, step in steps.items()}
    for name, value in values.items():
        if value is not None and name != SENTENCES:  # which takes one semi-hard negative a pair, not all
            torch.testing.assert_close(value, values[OURS], rtol=1e-3, atol=1e-3, msg=name)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            wait(device)
            start = time.perf_counter()
            steps[name]()
            wait(device)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_bytes() -> int:
    """Peak resident memory of this process since `forget_peak`, or of its life where that is not possible."""
    return status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def status_bytes(entry: str) -> int:
    """An entry of Linux's /proc/self/status; elsewhere 0."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(entry))


def forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def extra_memory_here(case: str, name: str, device: str) -> float:
    """Megabytes (1e6) that one step needs at most beyond its inputs; to be called in a fresh process."""
    make_step(case, name, device, tiny=True)()
    step = make_step(case, name, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    forget_peak()
    before = psutil.Process().memory_info().rss
    step()
    return (peak_bytes() - before) / 1e6


def million_here(kind: str, device: str) -> dict[str, float]:
    """Seconds of a step with its update at a million products, and peak memory in GB (1e9): process, or GPU."""
    torch.manual_seed(0)
    options: dict[str, Any] = {} if kind == "all" else {"negatives": 10_000, "sparse": True}
    loss = ProxyNCALoss(1_000_000, 64, SCALE, seed=0, **options).to(device)
    optimisers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sampled": torch.optim.SparseAdam,
        "sampled-adagrad": torch.optim.Adagrad,
        "all": torch.optim.SGD,
    }
    optimiser = optimisers[kind](loss.parameters(), lr=1e-3)
    x = torch.randn(256, 64, device=device).requires_grad_()
    seconds = []
    for _ in range(4):
        labels = torch.randint(1_000_000, (256,), device=device)
        start = time.perf_counter()
        optimiser.zero_grad()
        value = loss(x, labels)
        value.backward()
        optimiser.step()
        assert value.isfinite()  # also waits for the device
        seconds.append(time.perf_counter() - start)
    on_gpu = device == "cuda"
    peak, files = (torch.cuda.max_memory_allocated(), 0) if on_gpu else (peak_bytes(), status_bytes("RssFile"))
    return {"seconds": statistics.median(seconds[1:]), "peak_gb": peak / 1e9, "files_gb": files / 1e9}


def in_fresh_process(options: argparse.Namespace, *arguments: str) -> Any:
    command = [sys.executable, __file__, *arguments]
    command += ["--gpu" if options.gpu else "--no-gpu"] + ["--keep-memory"] * options.keep_memory
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        raise RuntimeError(found.stderr)
    return json.loads(found.stdout.splitlines()[-1])


def half_precision(device: str) -> tuple[float, float, float]:
    """Proxy-NCA under fp16 autocast, scale 100, each embedding on another product's proxy: peer, ours, float64."""
    proxies = nn.functional.normalize(torch.randn(64, 64, generator=torch.Generator().manual_seed(0))).to(device)
    x, labels = proxies.half().roll(1, 0), torch.arange(64, device=device)
    theirs, ours = peer("losses").ProxyNCALoss(64, 64, softmax_scale=100), ProxyNCALoss(64, 64, 100.0)
    theirs.proxies.data, ours.bank.proxies.data = proxies.clone(), proxies.clone()
    ours.to(device)
    with torch.autocast(device, torch.float16), torch.no_grad():
        by_peer, by_us = theirs(x, labels).item(), ours(x, labels).item()
    unit = nn.functional.normalize
    logits = (
        -100 * torch.cdist(unit(x.double()), unit(proxies.double()), compute_mode="donot_use_mm_for_euclid_dist") ** 2
    )
    return by_peer, by_us, nn.functional.cross_entropy(logits, labels).item()


def gpu_floor_seconds(rows: int, count: int, size: int) -> float:
    """What three products, reading the proxies twice and writing their gradient once, take at measured rates."""

    def rate(work: float, job: Callable[[], object]) -> float:
        job()
        wait("cuda")
        start = time.perf_counter()
        for _ in range(5):
            job()
        wait("cuda")
        return 5 * work / (time.perf_counter() - start)

    square, block = torch.randn(8192, 8192, device="cuda"), torch.empty(1 << 29, device="cuda")
    flops = rate(2 * 8192**3, lambda: square @ square)
    bandwidth = rate(2 * 4 * (1 << 28), lambda: block[: 1 << 28].copy_(block[1 << 28 :]))
    return max(6 * rows * count * size / flops, 3 * 4 * count * size / bandwidth)


def ratio(of: list[float], over: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(of, over, strict=True))


def verdict(held: bool) -> str:
    return "held" if held else "**missed**"


def compare(case: str, options: argparse.Namespace, device: str) -> Iterator[str]:
    """The table of one case, line by line."""
    seconds = timed(case, options.rounds, device)
    memory = {
        name: in_fresh_process(options, "--memory", case, name) for name in seconds if name not in (BARE, BARE_CHUNKS)
    }
    shape = NCA_CASES.get(case) or TRIPLET_CASES[case]
    if case in NCA_CASES:
        yield "## Proxy-NCA forward and backward, B={} C={:,} D={}".format(*shape)
    else:
        yield "## Triplet, all semi-hard, forward and backward, B={:,} D={}, {} images a product".format(*shape)
    yield from (
        "",
        "| what | ms (median) | over Univert (median of rounds) | peak extra memory, MB |",
        "|---|---|---|---|",
    )
    for name, took in seconds.items():
        extra = f"{memory[name]:.0f}" if name in memory else "-"
        yield f"| {name} | {1e3 * statistics.median(took):.1f} | {ratio(took, seconds[OURS]):.2f} | {extra} |"
    faster = ratio(seconds[PEER], seconds[OURS])
    least = {"small": 2, "large": 4}.get(case, 8)
    targets = [f"at least {least} times as fast as {PEER}: {faster:.1f} ({verdict(faster >= least)})"]
    if case in NCA_CASES:
        bare = min((seconds[BARE], seconds[BARE_CHUNKS]), key=statistics.median)
        over = ratio(seconds[OURS], bare)
        within = f"over the faster of the bare products: {over:.2f}"
        targets.append(f"{within} (at most 1.5: {verdict(over <= 1.5)})" if case == "large" else within)
    if case == "large":
        targets.append(f"at most 150 MB extra: {memory[OURS]:.0f} ({verdict(memory[OURS] <= 150)})")
    if case in TRIPLET_CASES:
        part = memory[OURS] / memory[PEER]
        targets.append(f"at most 1/10 of its memory: 1/{1 / max(part, 1e-9):.0f} ({verdict(part <= 0.1)})")
    if device == "cuda" and case in NCA_CASES:
        floor = gpu_floor_seconds(*NCA_CASES[case])
        targets.append(f"over the floor of {1e3 * floor:.2f} ms: {statistics.median(seconds[OURS]) / floor:.2f}")
    yield from ("", *(f"- {target}" for target in targets), "")


def report_million(options: argparse.Namespace) -> Iterator[str]:
    yield "## Proxy-NCA at C=1,000,000 D=64 B=256, one step with its update"
    yield ""
    yield "| proxies in the sum, gradient, optimiser | ms (median) | peak memory, GB | of it library files |"
    yield "|---|---|---|---|"
    held = []
    for kind, words in MILLION.items():
        found = in_fresh_process(options, "--million", kind)
        peak = found["peak_gb"]
        held.append(f"{words}: {verdict(peak <= 1.5)}")
        yield f"| {words} | {1e3 * found['seconds']:.0f} | {peak:.2f} | {found['files_gb']:.2f} |"
    yield from ("", f"- at most 1.5 GB in all: {'; '.join(held)}", "")


def report_half(device: str) -> Iterator[str]:
    by_peer, by_us, exact = half_precision(device)
    yield "## Proxy-NCA under fp16 autocast, scale 100, each embedding on another product's proxy"
    yield from ("", "| what | loss |", "|---|---|")
    for name, value in ((PEER, by_peer), (OURS, by_us), ("float64", exact)):
        yield f"| {name} | {value:.4f} |"
    yield from ("", f"- within 1e-2 of float64: {verdict(abs(by_us - exact) <= 1e-2 * exact)}", "")


def main() -> int:
    cases = [*NCA_CASES, "million", *TRIPLET_CASES, "half"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--case", nargs="+", choices=cases, help="these alone; nothing is written")
    parser.add_argument(
        "--gpu",
        action=argparse.BooleanOptionalAction,
        default=torch.cuda.is_available(),
        help="the default where there is one",
    )
    parser.add_argument("--keep-memory", action="store_true", help="let the C library keep freed memory")
    parser.add_argument("--memory", nargs=2, metavar=("CASE", "NAME"), help=argparse.SUPPRESS)
    parser.add_argument("--million", choices=MILLION, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.keep_memory:
        reuse_freed_memory()
    device = "cuda" if options.gpu else "cpu"
    if options.memory:
        print(json.dumps(extra_memory_here(options.memory[0], options.memory[1], device)))
        return 0
    if options.million:
        print(json.dumps(million_here(options.million, device)))
        return 0
    measured_commit, load = commit("src/univert/losses", "bench/loss*.py"), os.getloadavg()[0]
    lines = ["# Losses against their peers and the limit", ""]
    for case in options.case or cases:
        if case == "million":
            found = report_million(options)
        elif case == "half":
            found = report_half(device)
        else:
            found = compare(case, options, device)
        for line in found:
            print(line, flush=True)
            lines.append(line)
    machine = torch.cuda.get_device_name() if options.gpu else cpu_name()
    kept = "kept" if options.keep_memory else "left to the C library"
    lines += [
        f"Machine: {machine}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, load at the start "
        f"{load:.1f}, freed memory {kept}; Python {platform.python_version()}, torch {torch.__version__}. "
        f"Commit {measured_commit}, {datetime.date.today().isoformat()}.",
        "",
        "" if SENTENCES in contenders("triplet-4") else f"{SENTENCES} is not installed here; it would be a peer, too.",
        f"Made by `python bench/losses.py --rounds {options.rounds}{' --keep-memory' if options.keep_memory else ''}`.",
        "",
    ]
    if not options.case:
        write_atomic(RESULTS / ("losses_gpu.md" if options.gpu else "losses.md"), "\n".join(lines))
    missed = "**missed**" in "\n".join(lines)
    print("a limit was missed" if missed else "all limits held", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
