"""From a photo to the product in it: the unified-embedding paper's claims on product pictures and scenes.

    python bench/photo_to_product.py PRODUCTS SCENES [--detector runs/detector] [--seeds 0 1 2]
        [--out .work/bench-photo-to-product]

PRODUCTS and SCENES are whatever `univert catalogue build` takes. Queries are the items of test scenes, the gallery the
product pictures of the test products. For each seed the main job, from the default recipe (or with `--set
base_network_learns=no`, `--set specialists.by_source=true`, ...): specialists, groups, joint models, the
unified model; `--set evaluation.baselines=[...]` adds rows. Then one triplet model on 1, 2, 3, ... verticals
(Table 1 in shape), each vertical by itself and in the group it was put in (Table 2), and what is lost where an item is
not cut out by its true box: by a detector's, or not at all. Writes bench/results/photo_to_product.md and a plot beside
it. Started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torchvision.ops import box_iou

from common import per_cent
from sample import RESULTS, Seeds, add_options, difference_line, main_tables, run_seeds
from univert.core.allocator import reuse_freed_memory
from univert.core.files import write_atomic
from univert.data.build import build_catalogue
from univert.data.catalogue import Catalogue
from univert.data.decode import BoxXyxyPx, decode_rgb
from univert.data.readers import open_source
from univert.data.rows import SourceProblem, SourceRow
from univert.detection.engine import Detector, load_detector
from univert.metrics.per_query import query_outcomes
from univert.models.embedder import Embedder
from univert.training.run_context import RunContext
from verticals import draw, joint_table, joint_triplet

OVERLAP = 0.5
"""A detector has found an item if one of its boxes overlaps it by so much."""

Boxes = Callable[[SourceRow], list[BoxXyxyPx]]
"""From a scene to a box for each of its items."""


def whole_photo(row: SourceRow) -> list[BoxXyxyPx]:
    width, height = _picture(row).size
    return [(0.0, 0.0, float(width), float(height))] * len(row.items or ())


def detected(detector: Detector, found: list[bool]) -> Boxes:
    """The detector's box that overlaps an item most: what a tap on it would give. Without one, the whole photo.

    `found` tells for each item asked for whether it was found.
    """

    def boxes(row: SourceRow) -> list[BoxXyxyPx]:
        chosen = whole_photo(row)
        items = detector.detect([_picture(row)])[0]
        true = torch.tensor([item.box_xyxy_px for item in row.items or ()]).reshape(-1, 4)
        seen = torch.tensor([item.box_xyxy_px for item in items]).reshape(-1, 4)
        overlaps = box_iou(true.double(), seen.double())
        for number, overlap in enumerate(overlaps):
            most = float(overlap.max()) if len(items) else 0.0
            found.append(most >= OVERLAP)
            if most:
                chosen[number] = items[int(overlap.argmax())].box_xyxy_px
        return chosen

    return boxes


def _picture(row: SourceRow):  # type: ignore[no-untyped-def]
    assert row.image is not None
    return decode_rgb(row.image)


def with_boxes(catalogue: Path, out: Path, boxes: Boxes) -> Catalogue:
    """The test images of a catalogue, the items of its scenes in other boxes."""

    def rows() -> Iterator[SourceRow]:
        for row in open_source(catalogue):
            assert not isinstance(row, SourceProblem)
            if row.split != "test":
                continue
            if row.items is not None:
                pairs = zip(row.items, boxes(row), strict=True)
                row = replace(row, items=tuple(replace(item, box_xyxy_px=box) for item, box in pairs))
            yield row

    build_catalogue(rows(), out, overwrite=True)
    return Catalogue.open(out)


def recall(model: Embedder, catalogue: Catalogue) -> float:
    """Merged Recall@1 of the items of scenes among product pictures."""
    columns = [list(catalogue.column(name)) for name in ("product", "vertical")]
    outcomes = query_outcomes(model.embed_catalogue(catalogue), *columns, queries=catalogue.in_scene)
    return float(outcomes.merged.hits(1).mean())


def models_of(context: RunContext) -> dict[str, Embedder]:
    """The models of a finished run for all verticals."""
    folders = {
        "one joint triplet model": "joint/triplet",
        "one joint Proxy-NCA model": "joint/proxy_nca",
        "unified": "unified",
    }
    loaded = {
        title: Embedder.from_pretrained(context.run.path / folder)
        for title, folder in folders.items()
        if (context.run.path / folder).exists()
    }
    return {"untrained base network": context.features.base, **loaded}


def boxes_table(contexts: list[RunContext], catalogues: dict[str, Catalogue]) -> list[str]:
    """A line a model, a column a way to cut items out."""
    rows: dict[str, list[list[float]]] = {}
    for context in contexts:
        for title, model in models_of(context).items():
            rows.setdefault(title, []).append([recall(model, one) for one in catalogues.values()])
    lines = [f"| merged R@1 | {' | '.join(catalogues)} |", "|---" * (1 + len(catalogues)) + "|"]
    for title, runs in rows.items():
        lines.append(f"| {title} | {' | '.join(per_cent(list(column)) for column in zip(*runs, strict=True))} |")
    return lines


def groups_table(found: Seeds) -> list[str]:
    """Each vertical by its own specialist and by that of its group."""
    lines = ["| vertical | own R@1 | in its group | difference | 95% interval over products |", "|---|---|---|---|---|"]
    runs = [run for run in found.outcomes if "groups" in run]
    for name in runs[0]["groups"].verticals if runs else []:
        pairs = [(run["specialists"].verticals[name], run["groups"].verticals[name]) for run in runs]
        known = [(first, second) for first, second in pairs if first is not None and second is not None]
        if known:
            lines.append(difference_line(name, known))
    return lines if runs else ["Every vertical stayed by itself."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("products", type=Path)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--detector", type=Path, help="a detector trained on the scenes of train and val")
    parser.add_argument("--counts", type=int, nargs="*", default=[], help="of verticals of the joint triplet models")
    parser.add_argument("--result", default="photo_to_product", help="name of the files in bench/results")
    add_options(parser, ".work/bench-photo-to-product")
    options = parser.parse_args()
    reuse_freed_memory()
    place = options.out / "home.lance"
    if not place.exists():
        build_catalogue(itertools.chain(open_source(options.products), open_source(options.scenes)), place)
    catalogue = Catalogue.open(place)
    found = run_seeds(catalogue, options)
    images = found.contexts[0].images
    order = sorted(images.vertical_names, key=lambda name: (-int(images.of_vertical(name).sum()), name))
    together = [joint_triplet(context, order, options.counts) for context in found.contexts]
    draw(together, order, RESULTS / f"{options.result}.png")
    true_boxes = catalogue.select(split="test")
    catalogues = {"whole photo": with_boxes(place, options.out / "whole.lance", whole_photo), "true box": true_boxes}
    seen: list[bool] = []
    if options.detector is not None:
        boxes = detected(load_detector(options.detector), seen)
        catalogues["detected box"] = with_boxes(place, options.out / "detected.lance", boxes)
    lines = [
        "# From a photo to the product in it: the home sample",
        "",
        f"Queries are the {int(true_boxes.in_scene.sum()):,} items of test scenes, the gallery is of "
        f"{int((~true_boxes.in_scene).sum()):,} product pictures.",
        "",
        *main_tables(found, catalogue),
        "",
        "## One triplet model on 1, 2, 3, ... verticals",
        "",
        "R@1 within each vertical the model was trained on, largest vertical first.",
        "",
        *joint_table(together, order),
        "",
        "## Each vertical by itself and in its group",
        "",
        *groups_table(found),
        "",
        "## How the item is cut out",
        "",
        *boxes_table(found.contexts, catalogues),
    ]
    if seen:
        share = 100 * statistics.mean(seen)
        lines += ["", f"The detector finds {share:.1f}% of the items (a box with an overlap of {OVERLAP:g})."]
    write_atomic(RESULTS / f"{options.result}.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
