"""Draws the plots of docs/proxy-results.md from what bench/proxies.py measured.

python bench/proxy_plots.py [--out .work/bench-proxies]
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

SHOWN = {
    "Proxy-NCA": "#c0392b",
    "Triplet, semi-hard": "#2c5aa0",
    "N-pairs": "#6b8e23",
    "Lifted structure": "#b8860b",
    "Structured clustering": "#7d4e9e",
    "Proxy-NCA, started from the data": "#e08e79",
}
GREY = "#d4d4d4"
BOUNDS = {
    "nca_tightness": "NCA bound minus NCA loss (0: tight)",
    "order_preserved": "triplets whose order the proxies keep, %",
}


def draw(plots: dict[str, Any], ratios: tuple[float, ...], folder: Path) -> None:
    """Write the three plots into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    _curves(plots["curves"], folder / "recall-by-step.png")
    _ratios(plots["ratios"], ratios, folder / "proxies-per-product.png")
    _bounds(plots["bounds"], folder / "bounds-by-step.png")


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)


def _curves(curves: dict[str, list[list[float]]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(8.2, 4.6))
    for title, points in curves.items():
        colour = SHOWN.get(title, GREY)
        steps, values = zip(*points, strict=True)
        axes.plot(
            steps,
            [100 * v for v in values],
            color=colour,
            lw=2 if title in SHOWN else 1,
            zorder=2 if title in SHOWN else 1,
            label=title if title in SHOWN else None,
        )
    last = max(points[-1][0] for points in curves.values())
    axes.set_xlim(0, last)
    axes.legend(frameon=False, loc="lower right")
    axes.set_ylim(20, 65)
    axes.set_xlabel("step (128 images each)")
    axes.set_ylabel("test R@1, %")
    axes.set_title("Recall@1 by training step, mean over seeds (grey: the other losses)", loc="left", fontsize=10)
    _save(figure, path)


def _ratios(kinds: dict[str, list[list[float]]], ratios: tuple[float, ...], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7.2, 4.2))
    marks = (("#e08e79", "--"), ("#c0392b", "-"), ("#2c5aa0", "-"), ("#9db8dc", "--"))
    for (kind, values), (colour, line) in zip(kinds.items(), marks, strict=True):
        means = [100 * statistics.mean(one) for one in values]
        errors = [100 * (statistics.stdev(one) if len(one) > 1 else 0) for one in values]
        axes.errorbar(ratios, means, errors, color=colour, ls=line, marker="o", ms=5, lw=2, capsize=3, label=kind)
    axes.set_xscale("log")
    axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    axes.minorticks_off()
    axes.legend(frameon=False, loc="lower right")
    axes.set_xlabel("proxies per product")
    axes.set_ylabel("test R@1, %")
    axes.set_title("Recall@1 by number of proxies, mean and deviation over seeds", loc="left", fontsize=10)
    _save(figure, path)


def _bounds(losses: dict[str, dict[str, list[list[float]]]], path: Path) -> None:
    figure, both = plt.subplots(1, 2, figsize=(9.6, 3.8))
    for axes, (name, label) in zip(both, BOUNDS.items(), strict=True):
        factor = 100 if label.endswith("%") else 1
        for title, watched in losses.items():
            if name in watched and title in SHOWN:
                steps, values = zip(*watched[name], strict=True)
                shown = [factor * value for value in values]
                axes.plot(steps, shown, color=SHOWN[title], lw=2, label=title)
                axes.set_xlim(0, steps[-1])
        axes.legend(frameon=False)
        axes.set_xlabel("step")
        axes.set_title(label, loc="left", fontsize=10)
    _save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(".work/bench-proxies"))
    options = parser.parse_args()
    from proxies import RATIOS

    draw(json.loads((options.out / "plots.json").read_text()), RATIOS, Path("docs/images"))


if __name__ == "__main__":
    main()
