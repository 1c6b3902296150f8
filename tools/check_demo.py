"""Check that a demo run produced its figures, files and answers, and that the figures clear a floor.

Usage: python tools/check_demo.py runs/demo
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# Far below what every seed reaches and far above what a broken run does.
FLOORS = {"base": 0.25, "specialists": 0.35, "joint_proxy_nca": 0.28, "unified": 0.30}
DETECTOR_FLOORS = {"any_vertical_ap_50": 0.20, "map_50": 0.06}
FILES = (
    "recipe.toml",
    "groups.json",
    "report.html",
    "room.html",
    "unified/model.onnx",
    "detector/detector/model.onnx",
    "home.index/calibration.json",
)


def problems(run: Path) -> list[str]:
    """What is missing or too low in a run folder; empty when all is well."""
    found = [f"{name} is missing" for name in FILES if not (run / name).exists()]
    results = json.loads((run / "evaluation.json").read_text())
    recalls = {row["key"]: row["evaluation"]["merged"]["recall_at"]["1"]["value"] for row in results["rows"]}
    detection = json.loads((run / "detector" / "stages" / "detector.json").read_text())["result"]["validation"]
    found += [f"merged R@1 of {line}" for line in too_low(recalls, FLOORS)]
    found += [f"the detector's {line}" for line in too_low(detection, DETECTOR_FLOORS)]
    if 'class="frame"' not in (run / "room.html").read_text():
        found.append("room.html shows no item")
    return found


def too_low(values: dict[str, Any], floors: dict[str, float]) -> list[str]:
    """A line for each value that is missing or below its floor; prints the others."""
    found = []
    for key, floor in floors.items():
        value = values.get(key)
        if value is None or not value >= floor:
            found.append(f"{key} is {value}, below {floor}")
        else:
            print(f"{key:18s} {value:.3f} (floor {floor})")
    return found


def main() -> None:
    """Print the figures; exit 1 if something is wrong."""
    found = problems(Path(sys.argv[1]))
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
