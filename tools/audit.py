"""Audit the pinned dependencies against the published vulnerabilities; without a network, say so and pass.

    python tools/audit.py [requirements/dev.txt] [--needed]

Exit 1 if a dependency has a known vulnerability. `--needed` also fails where something could not be audited: for a
release, or a nightly job that has a network.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LIMIT_S = 300
OPTIONS = ("--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "10")
IGNORED: dict[str, str] = {}
"""Vulnerabilities that do not reach us, each with the reason."""


def main() -> None:
    """Print what was found, a line a vulnerability."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("requirements", type=Path, nargs="?", default=Path("requirements/dev.txt"))
    parser.add_argument("--needed", action="store_true")
    options = parser.parse_args()
    report = run(options.requirements)
    if report is None:
        print("audit: the vulnerability service cannot be reached; nothing was audited")
        sys.exit(1 if options.needed else 0)
    found = [
        f"{entry['name']} {entry['version']}: {one['id']}, fixed in {', '.join(one['fix_versions']) or 'nothing yet'}"
        for entry in report
        for one in entry.get("vulns", ())
        if one["id"] not in IGNORED
    ]
    skipped = [entry["name"] for entry in report if "skip_reason" in entry]
    print("\n".join(found) or "audit: no known vulnerability", end="")
    print(f" in {len(report) - len(skipped)} of {len(report)} dependencies")
    if skipped:
        print(f"audit: {len(skipped)} could not be audited, {skipped[0]} among them")
    sys.exit(1 if found or (skipped and options.needed) else 0)


def run(requirements: Path) -> list[dict[str, Any]] | None:
    """The report of pip-audit, an entry a dependency; None if it could not ask."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(requirements), *OPTIONS]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
        return list(json.loads(done.stdout)["dependencies"])
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        return None


if __name__ == "__main__":
    main()
