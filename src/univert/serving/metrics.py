"""What the service counts, for Prometheus; with several worker processes each scrape adds them up."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Where worker processes share their counts; must be set before `prometheus_client` is first imported."""

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5.0, 10.0, 30.0)
_BATCHES: Final = (1, 2, 4, 8, 16, 32, 64, 128)
_SHARES: Final = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_LIVE_FILE: Final = re.compile(r"gauge_live[a-z]*_(\d+)\.db")


class Metrics:
    """The counters, histograms and gauges of one application."""

    def __init__(self) -> None:
        own = CollectorRegistry()
        self._registry = own
        self.requests = Counter("univert_requests", "Requests answered.", ("route", "method", "status"), registry=own)
        self.problems = Counter("univert_problems", "Requests answered with a problem.", ("type",), registry=own)
        self.request_seconds = Histogram(
            "univert_request_seconds",
            "From the end of the headers to the end of the answer.",
            ("route",),
            buckets=_SECONDS,
            registry=own,
        )
        self.stage_seconds = Histogram(
            "univert_stage_seconds",
            "Seconds in each stage of a request: read, decode, embed, search, identify.",
            ("stage",),
            buckets=_SECONDS,
            registry=own,
        )
        self.batch_size = Histogram(
            "univert_batch_size", "Photos that went through the network together.", buckets=_BATCHES, registry=own
        )
        self.forward_seconds = Histogram(
            "univert_forward_seconds", "Seconds of the network for a batch.", buckets=_SECONDS, registry=own
        )
        self.search_batch_size = Histogram(
            "univert_search_batch_size", "Queries that went to the index together.", buckets=_BATCHES, registry=own
        )
        self.queue_depth = Gauge(
            "univert_queue_depth", "Photos waiting for the network.", registry=own, multiprocess_mode="livesum"
        )
        self.in_flight = Gauge(
            "univert_requests_in_flight", "Requests being served.", registry=own, multiprocess_mode="livesum"
        )
        self.upload_bytes = Gauge(
            "univert_upload_bytes", "Bytes of uploads held.", registry=own, multiprocess_mode="livesum"
        )
        self.index_version = Gauge(
            "univert_index_version",
            "The published version that answers; the oldest where workers differ.",
            registry=own,
            multiprocess_mode="livemin",
        )
        self.index_images = Gauge(
            "univert_index_images", "Images in the version that answers.", registry=own, multiprocess_mode="livemin"
        )
        self.refresh_failing = Gauge(
            "univert_index_refresh_failing",
            "Workers whose last look for a newer version of the index failed.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.recall = Histogram(
            "univert_recall",
            "Share of the exact nearest that live queries found, for a sample of them.",
            buckets=_SHARES,
            registry=own,
        )
        self.recall_skipped = Counter(
            "univert_recall_skipped", "Sampled queries not compared: one was, or had just been.", registry=own
        )
        self.identities = Counter(
            "univert_identities", "Answers of identity, by what is known.", ("level", "known"), registry=own
        )

    def observe_batch(self, size: int, seconds: float) -> None:
        """A batch went through the network."""
        self.batch_size.observe(size)
        self.forward_seconds.observe(seconds)

    def render(self) -> bytes:
        """The text that Prometheus scrapes, over all worker processes if there are several."""
        folder = os.environ.get(FOLDER_VARIABLE)
        if not folder:
            return generate_latest(self._registry)
        forget_dead_workers(Path(folder))
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone, path=folder)
        return generate_latest(everyone)


def forget_dead_workers(folder: Path) -> None:
    """Drop the gauges of workers that are gone, killed ones included; their counters stay, as they happened."""
    if not Path("/proc/self").exists():
        return
    for file in folder.glob("gauge_live*.db"):
        found = _LIVE_FILE.fullmatch(file.name)
        if found and not _lives(int(found[1])):
            mark_process_dead(int(found[1]), path=str(folder))


def _lives(pid: int) -> bool:
    try:
        about = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    # PID (NAME) STATE ...; a process that was killed is a zombie until its parent has seen it
    return about.rpartition(")")[2].split()[0] not in ("Z", "X")
