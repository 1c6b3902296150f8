"""One attempt at placing products for a scene, from a random generator."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import numpy as np

from home.models import Product
from home.placing import (
    Placed,
    Scene,
    apart,
    hangs,
    hangs_free,
    is_flat,
    is_large,
    is_outdoor,
    is_small,
    rotation,
    stands_at_wall,
)
from home.visibility import Camera

LONG_SIDE_PX, SHORT_SIDE_PX = 400, 300
FAVOURED = {"beds": 3.0, "doors": 2.0, "tables": 2.0, "sofas": 1.5, "lighting": 1.5}
"""How much likelier a product of a vertical is drawn for a room: these are often cut off by the frame, or few."""

ROOMS = ("living-room", "bedroom", "kitchen", "bathroom", "office")


class Layout:
    """One attempt at placing products for a scene."""

    def __init__(self, number: int, kind: str, split: str, products: Sequence[Product], rng: random.Random) -> None:
        self.number, self.kind, self.split = number, kind, split
        self.products, self.rng = products, rng
        self.feet: list[np.ndarray] = []
        self.placed: list[Placed] = []

    def scene(self) -> Scene:
        """The scene with everything in it."""
        rng = self.rng
        kind = self.kind
        size = (LONG_SIDE_PX, SHORT_SIDE_PX) if rng.random() < 0.7 else (SHORT_SIDE_PX, LONG_SIDE_PX)
        focal = rng.uniform(0.72, 1.0)
        height = rng.uniform(1.2, 1.7)
        back = {"room": rng.uniform(2.8, 5.0), "outdoor": rng.uniform(9, 25)}.get(kind, rng.uniform(1.5, 2.4))
        pitch = {"room": -rng.uniform(0.1, 0.32), "outdoor": -rng.uniform(0.0, 0.16)}.get(kind, 0.0)
        spread = size[0] / max(size) / focal / 2
        left, right = (rng.uniform(0.55, 1.1) * spread * back + 0.3 for _ in range(2))
        self.back, self.left, self.right, self.spread = back, -left, right, spread
        self.counter: tuple[float, float, float, float] | None = None
        if kind in ("table", "floor"):
            pitch = self.close_up(kind, height)
        elif kind == "room":
            self.room()
        else:
            self.outdoor()
        camera = Camera((0, 0, height), rng.uniform(-0.08, 0.08), pitch, focal, size)
        return Scene(
            number=self.number,
            kind=kind,
            split=self.split,
            camera=camera,
            back=self.back,
            left=self.left,
            right=self.right,
            counter=self.counter,
            placed=self.placed,
            seed=rng.randrange(2**31),
        )

    def pick(self, count: int, wanted: Callable[[Product], float]) -> list[Product]:
        """`count` products, drawn with weights `wanted`, each model once."""
        weights = [wanted(product) for product in self.products]
        chosen: list[Product] = []
        for _ in range(count * 3):
            if len(chosen) == count or not any(weights):
                break
            product = self.rng.choices(self.products, weights)[0]
            if all(
                product.model.key != other.model.key for other in [*chosen, *(item.product for item in self.placed)]
            ):
                chosen.append(product)
        return chosen

    def put(self, product: Product, x: float, y: float, turn: float, z: float = 0.0, margin: float = 0.02) -> bool:
        """Place a product unless it would stand in another, in a wall or in the camera; returns whether it stands."""
        item = Placed(product, (x, y, z), turn)
        foot = item.foot(margin)
        low, high = foot.min(axis=0), foot.max(axis=0)
        if low[0] < self.left or high[0] > self.right or high[1] > self.back or low[1] < 0.35:
            return False
        if is_flat(product):
            self.placed.append(item)
            return True
        if not all(apart(foot, other) for other in self.feet):
            return False
        self.feet.append(foot)
        self.placed.append(item)
        return True

    def room(self) -> None:
        """Furniture along the walls and on the floor, things on it, things on the walls."""
        rng = self.rng
        theme = rng.choice(ROOMS)

        def weight(product: Product) -> float:
            fitting = 4.0 if product.model.style == theme else 1.0
            return fitting * FAVOURED.get(product.model.vertical, 1.0) / math.sqrt(1 + (product.finish is not None))

        def fits(product: Product) -> bool:
            width, depth, height = product.model.size_m
            return max(width, depth) < 3.0 and height < 2.45 and not is_outdoor(product)

        for product in self.pick(rng.randint(1, 3), lambda it: weight(it) * (fits(it) and hangs(it))):
            self.hang(product)
        for product in self.pick(rng.randint(2, 4), lambda it: weight(it) * (fits(it) and stands_at_wall(it))):
            self.along_wall(product)
        for product in self.pick(
            rng.randint(4, 8), lambda it: weight(it) * (fits(it) and is_large(it) and not hangs(it))
        ):
            self.on_floor(product, near=0.9 + max(product.model.size_m[:2]) / 2)
        small = self.pick(rng.randint(5, 9), lambda it: weight(it) * (is_small(it) and max(it.model.size_m) > 0.12))
        for product in small:
            if not self.on_top(product):
                self.on_floor(product, near=0.9)

    def hang(self, product: Product) -> None:
        """Something on a wall or from the ceiling, at the height its library gives."""
        rng = self.rng
        width, depth, _ = product.model.size_m
        elevation = product.model.elevation_m or rng.uniform(0.8, 1.6) * (product.model.vertical != "doors")
        if hangs_free(product):
            item = Placed(
                product,
                (rng.uniform(-0.5, 0.5) * self.back * self.spread, rng.uniform(0.5, 0.9) * self.back, elevation),
                rng.uniform(-3, 3),
            )
            self.placed.append(item)
            return
        for _ in range(12):
            at = (
                self.rng.uniform(self.left + width / 2, self.right - width / 2) if self.right - self.left > width else 0
            )
            if all(abs(at - other.at[0]) > (width + other.product.model.size_m[0]) / 2 for other in self.placed):
                self.placed.append(Placed(product, (at, self.back - depth / 2 - 0.002, elevation), 0.0))
                if elevation < 0.2:
                    self.feet.append(self.placed[-1].foot())
                return

    def along_wall(self, product: Product) -> None:
        """Something that stands with its back to the far wall or to a side wall."""
        width, depth, _ = product.model.size_m
        for _ in range(12):
            side = self.rng.choices(("back", "left", "right"), (3, 1, 1))[0]
            if side == "back":
                x = (
                    self.rng.uniform(self.left + width / 2, self.right - width / 2)
                    if self.right - self.left > width
                    else 0
                )
                done = self.put(product, x, self.back - depth / 2 - 0.04, 0.0)
            else:
                y = self.rng.uniform(0.45, 0.95) * self.back
                x = self.left + depth / 2 + 0.04 if side == "left" else self.right - depth / 2 - 0.04
                done = self.put(product, x, y, math.pi / 2 if side == "left" else -math.pi / 2)
            if done:
                return

    def on_floor(self, product: Product, near: float) -> None:
        """Something anywhere on the ground the camera sees."""
        for _ in range(12):
            y = self.rng.uniform(min(near, self.back * 0.7), self.back)
            x = self.rng.uniform(-1, 1) * self.spread * y * 0.9
            if self.put(product, x, y, self.rng.uniform(-math.pi, math.pi), margin=0.04):
                return

    def on_top(self, product: Product) -> bool:
        """Something on another thing; returns whether there was room."""
        supports = [it for it in self.placed if it.product.model.vertical in ("tables", "storage") and it.at[2] == 0]
        self.rng.shuffle(supports)
        for support in supports:
            top = support.product.model.top_m
            if top is None or not 0.25 < top < 1.35:
                continue
            width, depth = (side * 0.8 for side in support.product.model.size_m[:2])
            for _ in range(6):
                across, along = self.rng.uniform(-0.5, 0.5) * width, self.rng.uniform(-0.5, 0.5) * depth
                cos, sin = math.cos(support.turn), math.sin(support.turn)
                x, y = support.at[0] + cos * across - sin * along, support.at[1] + sin * across + cos * along
                item = Placed(product, (x, y, top + 0.002), self.rng.uniform(-math.pi, math.pi))
                if self.rests(item, support):
                    self.placed.append(item)
                    return True
        return False

    def rests(self, item: Placed, support: Placed) -> bool:
        """Whether `item` is over `support` and touches nothing else on it."""
        over = np.abs((item.foot() - np.array(support.at[:2])) @ rotation(support.turn))
        if (over > np.array(support.product.model.size_m[:2]) / 2).any():
            return False
        others = [it for it in self.placed if abs(it.at[2] - item.at[2]) < 0.01]
        return all(apart(item.foot(0.01), other.foot(0.01)) for other in others)

    def close_up(self, kind: str, height: float) -> float:
        """Small things on a table, a counter or the floor; returns the camera's pitch."""
        rng = self.rng
        on_table = kind == "table"
        top = rng.uniform(0.68, 0.92) if on_table else 0.0
        middle = rng.uniform(0.5, 0.8) if on_table else rng.uniform(0.9, 1.5)
        self.left, self.right = min(self.left, -1.2), max(self.right, 1.2)
        if on_table:
            depth = rng.uniform(0.6, 0.85)
            self.counter = (rng.uniform(1.2, 2.0), depth, top, middle + 0.1)
            self.back = max(middle + 0.1 + depth / 2 + rng.choice((0.0, 0.3)), 1.0)
        else:
            self.back = rng.uniform(2.0, 3.2)
        room, longest = (0.55, 0.5) if on_table else (1.1, 1.2)
        least = 0.05 if on_table else 0.1

        def weight(product: Product) -> float:
            side = max(product.model.size_m)
            usable = least < side < longest and not hangs(product) and not is_outdoor(product)
            return usable * (1.0 if on_table or product.model.vertical != "tableware" else 0.3)

        for product in self.pick(rng.randint(7, 12), weight):
            for _ in range(15):
                x, y = rng.uniform(-room, room), middle + 0.1 + rng.uniform(-0.5, 0.5) * (0.6 if on_table else 1.4)
                inside = self.counter is None or abs(y - self.counter[3]) < self.counter[1] / 2 - 0.04
                if inside and self.put(product, x, y, rng.uniform(-math.pi, math.pi), top + 0.001, 0.01):
                    break
        if on_table:
            for product in self.pick(
                rng.randint(0, 3), lambda it: hangs(it) and not hangs_free(it) and max(it.model.size_m) < 0.6
            ):
                elevation = min(max(product.model.elevation_m, top + 0.1), top + 0.35)
                self.placed.append(
                    Placed(
                        product,
                        (rng.uniform(-0.6, 0.6), self.back - product.model.size_m[1] / 2 - 0.002, elevation),
                        0.0,
                    )
                )
        return math.atan2(top + 0.05 - height, middle + 0.12) + rng.uniform(-0.05, 0.12)

    def outdoor(self) -> None:
        """Vehicles, plants and garden things on open ground."""
        rng = self.rng
        self.left, self.right = -20.0, 20.0
        self.back = 40.0

        def weight(product: Product) -> float:
            model = product.model
            if (
                hangs(product)
                or max(model.size_m) > 9
                or max(model.size_m) < 0.25
                or model.vertical in ("doors", "bathroom")
            ):
                return 0.0
            return 5.0 if is_outdoor(product) or model.style == "exterior" else 0.25

        for product in sorted(self.pick(rng.randint(8, 13), weight), key=lambda it: -max(it.model.size_m)):
            largest = max(product.model.size_m)
            for _ in range(15):
                y = 1.0 + largest * rng.uniform(0.8, 2.2) + rng.uniform(0, 2.5)
                if self.put(
                    product, rng.uniform(-0.9, 0.9) * self.spread * y, y, rng.uniform(-math.pi, math.pi), margin=0.1
                ):
                    break
