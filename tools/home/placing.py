"""Things at places: what a scene is made of, and how a kind of product is placed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from home.models import Product
from home.visibility import Camera

Points = Callable[[str], np.ndarray]
"""The surface points [N, 3] of a model by its key."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A product at a place: `at` is the middle of its foot in m, `turn` in radians about the vertical."""

    product: Product
    at: tuple[float, float, float]
    turn: float

    def points(self, points: Points) -> np.ndarray:
        """Its surface points in the scene, [N, 3] in m."""
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        turned = points(self.product.model.key) @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        moved: np.ndarray = turned + np.array(self.at)
        return moved

    def foot(self, margin: float = 0.0) -> np.ndarray:
        """The four corners [4, 2] of the ground it covers, in m."""
        width, depth = (side / 2 + margin for side in self.product.model.size_m[:2])
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        corners = np.array([[-width, -depth], [width, -depth], [width, depth], [-width, depth]])
        foot: np.ndarray = corners @ np.array([[cos, sin], [-sin, cos]]) + np.array(self.at[:2])
        return foot


@dataclass(slots=True)
class Scene:
    """One photo to take.

    Attributes:
        number: everything else follows from it.
        kind: `room`, `table`, `floor` or `outdoor`.
        split: the split of all its products.
        camera: where the photo is taken from.
        back: distance of the wall behind everything, in m.
        left: x of the left wall, in m.
        right: x of the right wall, in m.
        counter: width, depth, height and y of a counter that is no product; None without one.
        placed: the products.
        seed: for surfaces and light.
    """

    number: int
    kind: str
    split: str
    camera: Camera
    back: float
    left: float
    right: float
    counter: tuple[float, float, float, float] | None = None
    placed: list[Placed] = field(default_factory=list)
    seed: int = 0


def apart(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two convex polygons [N, 2] have a line between them."""
    for corners in (first, second):
        edges = np.roll(corners, -1, axis=0) - corners
        normals = np.stack([-edges[:, 1], edges[:, 0]], axis=1)
        one, other = first @ normals.T, second @ normals.T
        if ((one.max(axis=0) <= other.min(axis=0)) | (other.max(axis=0) <= one.min(axis=0))).any():
            return True
    return False


def rotation(turn: float) -> np.ndarray:
    """Matrix [2, 2] that turns row vectors back by `turn`."""
    cos, sin = math.cos(turn), math.sin(turn)
    return np.array([[cos, -sin], [sin, cos]])


def is_flat(product: Product) -> bool:
    """Whether other things may stand on it as on the floor."""
    width, depth, height = product.model.size_m
    return height < 0.06 and max(width, depth) > 0.5


def is_outdoor(product: Product) -> bool:
    """Whether it belongs outdoors only."""
    return product.model.vertical == "outdoor" or product.model.style in ("vehicles", "staircases")


def hangs(product: Product) -> bool:
    """Whether it is fixed to a wall or a ceiling."""
    return product.model.elevation_m > 0.25 or product.model.vertical == "doors"


def hangs_free(product: Product) -> bool:
    """Whether it hangs from the ceiling, away from the walls."""
    model = product.model
    return (
        model.elevation_m + model.size_m[2] > 2.2
        and model.vertical in ("lighting", "appliances")
        and min(model.size_m[:2]) > 0.12
    )


def stands_at_wall(product: Product) -> bool:
    """Whether it usually stands with its back to a wall."""
    return (
        product.model.vertical in ("storage", "appliances", "bathroom", "beds", "sofas")
        and is_large(product)
        and not hangs(product)
    )


def is_large(product: Product) -> bool:
    """Whether it stands on the floor."""
    return max(product.model.size_m) >= 0.5


def is_small(product: Product) -> bool:
    """Whether it stands on other things."""
    return max(product.model.size_m) < 0.62 and not hangs(product) and not is_outdoor(product)
