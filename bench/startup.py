"""Seconds to `import univert` and to `univert --help`, over those of a bare interpreter in the same run.

    python bench/startup.py [--rounds 15]

Writes bench/results/startup.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from univert.core.files import write_atomic

RESULT = Path(__file__).parent / "results" / "startup.md"
COMMANDS = {
    "bare interpreter": [sys.executable, "-c", "pass"],
    "import univert": [sys.executable, "-c", "import univert"],
    "univert --help": [str(Path(sys.executable).with_name("univert")), "--help"],
}
LIMITS_S = {"import univert": 0.3, "univert --help": 0.6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(rounds + 1):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - started)
    bare = statistics.median(seconds["bare interpreter"][1:])
    lines = ["# Start-up", "", f"Median of {rounds} rounds after a warm-up.", ""]
    lines += ["| command | seconds | over a bare interpreter | limit |", "|---|---|---|---|"]
    for name, values in seconds.items():
        median = statistics.median(values[1:])
        limit = f"{LIMITS_S[name]:.1f}" if name in LIMITS_S else ""
        lines.append(f"| {name} | {median:.3f} | {median / bare:.1f}x | {limit} |")
    write_atomic(RESULT, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
