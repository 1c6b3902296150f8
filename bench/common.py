"""What several benches share: the sample, and what was measured on which machine."""

from __future__ import annotations

import platform
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

from univert.data.catalogue import Catalogue
from univert.data.sample import build_sample


def sample_catalogue(out: Path) -> Catalogue:
    """The bundled sample, built within `out` unless it is there."""
    place = out / "sample.lance"
    return Catalogue.open(place) if place.exists() else build_sample(place)


def commit(*measured: str) -> str:
    """The commit that was measured, marked where the measured files differ from it.

    Args:
        measured: path patterns from the repository's root.
    """

    def git(*arguments: str) -> str:
        found = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
        return found.stdout.strip()

    root = Path(__file__).resolve().parent.parent
    changed = git("status", "--porcelain", "--", *measured)
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + (" with changes" if changed else "")


def cpu_name() -> str:
    """The processor, as the system names it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def mean_and_spread(values: Sequence[float], *, sign: bool = False) -> str:
    """Mean and, of several values, standard deviation over the seeds."""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{'+' if sign else ''}.1f}{spread}"


def per_cent(values: Sequence[float], *, sign: bool = False) -> str:
    """The same of shares, in per cent."""
    return mean_and_spread([100 * value for value in values], sign=sign)
