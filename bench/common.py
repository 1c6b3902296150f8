"""What several benches share: the emoji catalogue, and what was measured on which machine."""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from univert.data.catalogue import Catalogue

EMOJI = Path(".work/emoji/emoji.lance")


def emoji_catalogue() -> Catalogue:
    """Emoji by five artists, in nine verticals, as `tools/build_emoji.py` builds them; exits where nobody did."""
    if not EMOJI.exists():
        sys.exit(f"{EMOJI} is not there; build it (needs npm): python tools/build_emoji.py")
    return Catalogue.open(EMOJI)


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
