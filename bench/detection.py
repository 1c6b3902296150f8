"""Our detector against the same SSD assembled by hand from torchvision, and how well both find items.

    python bench/detection.py CATALOGUE [--out runs/bench-detection] [--set key=value ...]

CATALOGUE holds scenes and product pictures. In one process, on the same kept maps, with the same weights at the start,
batches, views, optimiser and learning rates, both for 200 steps: (a) `univert.training.detection.train_detector`; (b) a
plain loop over torchvision's `SSD` with the pyramid as its backbone and its default boxes, matching and loss, written
out here. Then both are measured on val. Three detectors of the whole recipe are measured on the scenes of val and of
test, whose products were never seen: learned from scenes with others made of product pictures by cut and paste among
them (the default), from scenes alone, from cut and paste alone. Writes bench/results/detection.md. Started again, it
goes on where it was, but measures the 200 steps anew.
"""

from __future__ import annotations

import argparse
import datetime
import math
import platform
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from sklearn.linear_model import LogisticRegression
from torchvision.ops import box_iou

from common import commit, cpu_name
from univert.core.config import read_settings
from univert.core.files import write_atomic
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.readers import open_source
from univert.data.rows import SourceProblem
from univert.data.samplers import UniformSampler, step_rng
from univert.detection.engine import load_detector
from univert.detection.model import make_detector
from univert.detection.scenes import evaluate_detector, open_scenes
from univert.detection.ssd import SsdDetector
from univert.metrics.detection import DetectionFigures
from univert.models.config import EmbedderConfig
from univert.models.embedder import Embedder
from univert.training.detection import SceneSource, train_detector
from univert.training.detection_recipe import DetectionRecipe
from univert.training.loop import CLIP_NORM, WARMUP

RESULT = Path(__file__).parent / "results" / "detection.md"
MOST_TIME = 1.05
STEPS = 200
"""Of the trainings by which the two are compared."""


def by_hand(scenes: Catalogue, recipe: DetectionRecipe, work: Path, steps: int) -> tuple[float, DetectionFigures]:
    """Seconds a step, with the one look at val as in ours, and the figures of a plain loop over torchvision's SSD."""
    scenes = scenes.select(split=("train", "val"))
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = make_detector(replace(recipe.detector, verticals=tuple(scenes.verticals)))
    assert isinstance(model, SsdDetector)
    groups = model.trainable(recipe.base_network_learns, recipe.last_blocks)
    val = np.flatnonzero(scenes.column("split") == "val")
    source = SceneSource(scenes, model, recipe, work)
    sampler = UniformSampler(source.train, batch_size=recipe.loop.batch_size, seed=recipe.seed)
    ssd, boxes = model.ssd, model.default_boxes
    parameters = [parameter for group in groups for parameter in group["params"]]
    peaks = {"head": recipe.loop.learning_rate, "base network": recipe.loop.base_network_learning_rate}
    optimiser = torch.optim.AdamW(
        [
            {
                "params": [one for one in group["params"] if (one.ndim > 1) == is_matrix],
                "weight_decay": 1e-2 * is_matrix,
                "name": group["name"],
            }
            for group in groups
            for is_matrix in (True, False)
        ],
        fused=True,
    )
    model.train()
    started = time.perf_counter()
    for step in range(steps):
        positions = sampler.batch(step)
        views = step_rng(recipe.seed, 2, step).integers(0, recipe.views + 1, size=len(positions))
        rows = source.load(positions, views)
        wanted = [source.targets.of_view(*one) for one in zip(positions.tolist(), views.tolist(), strict=True)]
        shown = [{"boxes": torch.from_numpy(b), "labels": torch.from_numpy(labels + 1)} for b, labels, _ in wanted]
        matched = [
            ssd.proposal_matcher(box_iou(one["boxes"], boxes))
            if len(one["boxes"])
            else torch.full((len(boxes),), -1, dtype=torch.int64)
            for one in shown
        ]
        terms = ssd.compute_loss(shown, model.outputs(rows), [boxes] * len(shown), matched)
        loss = terms["bbox_regression"] + terms["classification"]
        done = step / steps
        fall = 0.5 * (1 + math.cos(math.pi * max(0.0, done - WARMUP) / (1 - WARMUP)))
        for group in optimiser.param_groups:
            waits = group["name"] == "base network" and done < WARMUP
            group["lr"] = 0.0 if waits else peaks[group["name"]] * min(1.0, (step + 1) / (WARMUP * steps)) * fall
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimiser.step()
    figures = source.measure(model, val)
    return (time.perf_counter() - started) / steps, figures


def named_by_base_network(items: Catalogue, image_size_px: int) -> float:
    """Share of the items of test that logistic regression on the base network's features names right, from true boxes.

    It says what can be asked of a detector's names for products that it has never seen.
    """
    vectors = Embedder(EmbedderConfig(size=None, image_size_px=image_size_px)).eval().embed_catalogue(items)
    splits, names = items.column("split"), items.column("vertical")
    asked = (splits == "test") & items.in_scene
    learner = LogisticRegression(max_iter=300).fit(10 * vectors[splits == "train"], names[splits == "train"])
    return float(learner.score(10 * vectors[asked], names[asked]))


def sources(catalogue: Path, out: Path, recipe: DetectionRecipe) -> dict[str, tuple[Catalogue, Path]]:
    """What a detector may learn from, and the folder of its run."""
    products = out / "products.lance"
    if not products.exists():
        rows = (row for row in open_source(catalogue) if isinstance(row, SourceProblem) or row.items is None)
        build_catalogue(rows, products)
    return {
        "the whole recipe": (open_scenes(catalogue, out / "best", recipe.pasting), out / "best"),
        "scenes alone": (Catalogue.open(catalogue, scenes=True), out / "real"),
        "cut and paste alone": (open_scenes(products, out / "pasted", recipe.pasting), out / "pasted"),
    }


def row(name: str, figures: DetectionFigures, seconds: float | None) -> str:
    values: list[Any] = [figures.map_50, figures.map, figures.any_vertical_ap_50, *figures.recall_50.values()]
    cells = ["-" if value is None else f"{100 * value:.1f}" for value in values]
    return f"| {name} | {' | '.join(cells)} | {'' if seconds is None else f'{seconds:.3f}'} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-detection"))
    parser.add_argument("--learned-from", nargs="*", default=["best", "real", "pasted"], help="the folders of --out")
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    measured = commit("src/univert/detection", "src/univert/training", "bench/detection.py")
    recipe = read_settings(DetectionRecipe, None, options.set)
    loop = replace(recipe.loop, epochs=1, min_steps=STEPS, evaluations=1)
    steady = replace(recipe, views=2, loop=loop)
    scenes = Catalogue.open(options.scenes, scenes=True)
    shutil.rmtree(options.out / "steady", ignore_errors=True)
    ours = train_detector(scenes, options.out / "steady", steady, device="cpu")
    steps = ours["step"]
    hand_seconds, hand = by_hand(scenes, steady, options.out / "by-hand", steps)
    our_seconds = ours["seconds"] / steps
    looks = {name: scenes.select(split=name) for name in ("val", "test")}
    val = looks["val"]
    rows = [
        row(f"val: by hand from torchvision, {STEPS} steps", hand, hand_seconds),
        row("val: ours", evaluate_detector(load_detector(ours["model"]), val), our_seconds),
    ]
    best: dict[str, Any] = {}
    for title, (learned_from, folder) in sources(options.scenes, options.out, recipe).items():
        if folder.name not in options.learned_from:
            continue
        done = train_detector(learned_from, folder, recipe, device="cpu")
        best = best or done
        detector = load_detector(done["model"])
        rows += [row(f"{name}: {title}", evaluate_detector(detector, part), None) for name, part in looks.items()]
    named = {size: named_by_base_network(Catalogue.open(options.scenes), size) for size in (128, 224)}
    lines = [
        "# Finding items",
        "",
        f"{len(scenes)} scenes, {len(scenes.verticals)} verticals, {recipe.detector.base_network} at "
        f"{recipe.detector.image_size_px} px, {best['step']} steps of {recipe.loop.batch_size} in "
        f"{best['seconds'] / 60:.0f} minutes after the kept maps were made.",
        "",
        "| | mAP@50 | mAP | AP@50, any vertical | recall@50 small | medium | large | s a step |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"Seconds a step, ours over by hand: {our_seconds / hand_seconds:.2f} (at most {MOST_TIME:g}).",
        "",
        "The untrained base network, given the true box of a test item, names its vertical in "
        + " and ".join(f"{100 * share:.1f}% at {size} px" for size, share in named.items())
        + " of the cases (logistic regression on all train images).",
        "",
        f"Machine: {cpu_name()}, {torch.get_num_threads()} threads; Python {platform.python_version()}, torch "
        f"{torch.__version__}, torchvision {torchvision.__version__}. Commit {measured}, "
        f"{datetime.date.today().isoformat()}.",
        "",
    ]
    print("\n".join(lines))
    write_atomic(RESULT, "\n".join(lines))
    return 0 if our_seconds <= MOST_TIME * hand_seconds else 1


if __name__ == "__main__":
    raise SystemExit(main())
