"""Which scenes there are: what scene n shows follows from n alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

from home.layout import Layout
from home.models import Product
from home.placing import Placed, Points, Scene
from home.visibility import box_of, counts, nearest, share_seen

SPLIT_PATTERN = ("train", "test", "val", "train", "test", "train", "test", "val", "train", "test")
"""The split of scene n is entry n mod 10: two fifths train, one fifth val, two fifths test."""

KINDS = (("room", 0.52), ("table", 0.20), ("floor", 0.10), ("outdoor", 0.18))
FEWEST_ITEMS, MOST_ITEMS = 4, 10
TRIES = 30


def split_of(number: int) -> str:
    """The split of scene `number`."""
    return SPLIT_PATTERN[number % len(SPLIT_PATTERN)]


def make_scene(number: int, products: Sequence[Product], points: Points) -> Scene:
    """Scene `number` of products of its split: the first of `TRIES` layouts that shows enough of them, or the best."""
    split = split_of(number)
    mine = [product for product in products if product.model.split == split]
    kinds = random.Random(f"kind/{number}")  # noqa: S311
    kind = kinds.choices([name for name, _ in KINDS], [share for _, share in KINDS])[0]
    best: tuple[int, Scene] | None = None
    for attempt in range(TRIES):
        rng = random.Random(f"scene/{number}/{attempt}")  # noqa: S311
        scene = Layout(number, kind, split, mine, rng).scene()
        shown = shown_items(scene, points)
        enough = min(len(shown), FEWEST_ITEMS + 2)
        scene.placed = without_surplus(scene.placed, shown)
        if best is None or enough > best[0]:
            best = enough, scene
        if enough >= FEWEST_ITEMS + 2:
            break
    assert best is not None
    return best[1]


def without_surplus(placed: list[Placed], shown: set[int]) -> list[Placed]:
    """At most `MOST_ITEMS` of those that show; the ones that came last go."""
    kept, count = [], 0
    for index, item in enumerate(placed):
        count += index in shown
        if index not in shown or count <= MOST_ITEMS:
            kept.append(item)
    return kept


def shown_items(scene: Scene, points: Points) -> set[int]:
    """Which of the placed products count as items, judged by their surface points."""
    pixels = [scene.camera.project(item.points(points)) for item in scene.placed]
    owner = nearest(pixels, scene.camera.size_px)
    shown = set()
    for index, projected in enumerate(pixels):
        seen = owner == index
        if counts(box_of(seen), share_seen(projected, seen)):
            shown.add(index)
    return shown
