"""Check that a demo run produced its figures, files and answers, and that the figures clear a floor.

Usage: python tools/check_demo.py runs/demo
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

# Far below what every seed reaches and far above what a broken run does.
FLOORS = {"base": 0.25, "specialists": 0.40, "joint_triplet": 0.35, "joint_proxy_nca": 0.35, "unified": 0.42}
FILES = ("recipe.toml", "groups.json", "report.html", "search.html", "unified/model.safetensors", "sample.index")


def problems(run: Path) -> list[str]:
    """What is missing or too low in a run folder; empty when all is well."""
    found = [f"{name} is missing" for name in FILES if not (run / name).exists()]
    results = json.loads((run / "evaluation.json").read_text())
    recalls = {row["key"]: row["evaluation"]["merged"]["recall_at"]["1"]["value"] for row in results["rows"]}
    for key, floor in FLOORS.items():
        value = recalls.get(key)
        if value is None or not value >= floor:
            found.append(f"merged R@1 of {key} is {value}, below {floor}")
        else:
            print(f"{key:16s} merged R@1 {value:.3f} (floor {floor})")
    return found


def main() -> None:
    """Print the figures; exit 1 if something is wrong."""
    found = problems(Path(sys.argv[1]))
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
