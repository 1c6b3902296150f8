"""A photo of a room, all its items found, embedded and searched for: the service over the bare parts, one client.

    python bench/rooms.py MODEL INDEX DETECTOR PHOTOS [--rounds 3] [--seconds 6]

Every round asks `univert serve` with the JPEG files of the folder PHOTOS, one after the other over one connection, and
does the same without a service, in this process and with the same threads: decode the whole photo, run the detector,
crop, the network on all crops and the photo, one search for all, names. Medians; the ratio is taken within a round.
Writes bench/results/rooms.md; exit 1 beyond the limit.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from common import commit, cpu_name
from serving import K, load, service
from univert.core.files import write_atomic
from univert.data.decode import decode_rgb
from univert.detection.engine import Detector, load_detector
from univert.identity.vote import Calibration, find_calibration, identify
from univert.models.runtime.engine import Engine, load_engine
from univert.search.index import IndexReader
from univert.serving.search import ITEMS_DEFAULT

RESULT = Path(__file__).parent / "results" / "rooms.md"
LIMIT = 1.3


def bare(content: bytes, engine: Engine, detector: Detector, index: IndexReader, naming: Calibration | None) -> int:
    """The work of one photo without a service; how many items it has."""
    photo = decode_rgb(content)
    items = detector.detect([photo])[0][:ITEMS_DEFAULT]
    crops = [photo]
    for item in items:
        x0, y0, x1, y1 = item.box_xyxy_px
        crops.append(photo.crop((int(x0), int(y0), math.ceil(x1), math.ceil(y1))))
    vectors = engine.run(np.stack([engine.prepare(crop) for crop in crops]))
    cores = len(os.sched_getaffinity(0))
    found = index.current().search_many(vectors, K, model_fingerprint=engine.fingerprint, threads=cores)
    if naming is not None:
        for hits in found:
            identify(hits[: naming.neighbours], naming)
    return len(items)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "index", "detector", "photos"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    contents = [path.read_bytes() for path in sorted(options.photos.iterdir())]
    engine, detector = load_engine(options.model, "onnx"), load_detector(options.detector)
    naming = find_calibration(str(options.index), str(options.model), engine.fingerprint)
    os.environ["UNIVERT_DETECTOR"] = str(options.detector)
    rounds, items = list[tuple[float, float]](), list[int]()
    with service(options.model, options.index) as (port, _), IndexReader.open(options.index) as index:
        for number in range(options.rounds):
            served_ms = statistics.median(load(port, 1, options.seconds, options.photos)["latencies_ms"])
            took_ms, until = list[float](), time.perf_counter() + options.seconds
            while time.perf_counter() < until:
                for content in contents:
                    started = time.perf_counter()
                    items.append(bare(content, engine, detector, index, naming))
                    took_ms.append(1000 * (time.perf_counter() - started))
            rounds.append((served_ms, statistics.median(took_ms)))
            print(f"round {number + 1}: {rounds[-1]}", file=sys.stderr)
        images = len(index.current())
    served, alone = (statistics.median(one[side] for one in rounds) for side in (0, 1))
    ratio = statistics.median(one / other for one, other in rounds)
    lines = [
        "# Photos of rooms: the service over the bare parts",
        "",
        f"{len(contents)} photos with {statistics.mean(items):.1f} items each as found, {images:,} images indexed, "
        f"one client; medians of {options.rounds} rounds.",
        "",
        "| what | | to hold |",
        "|---|---|---|",
        f"| `POST /search`, each item answered, p50, ms | {served:.1f} | |",
        f"| decoding, detector, crops, network, search, naming without a service, p50, ms | {alone:.1f} | |",
        f"| the first over the second | {ratio:.2f} | <= {LIMIT} |",
        "",
        f"Machine: {cpu_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"Python {platform.python_version()}; commit {commit('src', 'bench/rooms.py', 'bench/serving*.py')}.",
        "",
        f"Made by `python bench/rooms.py MODEL INDEX "
        f"DETECTOR PHOTOS --rounds {options.rounds} --seconds {options.seconds:g}`.",
        "",
    ]
    print("\n".join(lines))
    write_atomic(RESULT, "\n".join(lines))
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
