"""Where things appear in a photo: projection, the share of a thing that is seen, its box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_VISIBLE = 0.4
LEAST_SIDE_PX = 24
LEAST_SHORT_SIDE_PX = 10
CELLS = 1500
"""About how many cells a silhouette is divided into; far fewer than a model has points, so that it shows no holes."""


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera that looks along +y when `yaw` and `pitch` are 0.

    Attributes:
        position: in m.
        yaw: turn to the left, in radians.
        pitch: tilt upwards, in radians.
        focal: focal length over the longer side of the picture.
        size_px: width and height.
    """

    position: tuple[float, float, float]
    yaw: float
    pitch: float
    focal: float
    size_px: tuple[int, int]

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixel coordinates and distance in m, [N, 3], of points [N, 3]; behind the camera the distance is <= 0."""
        moved = points - np.array(self.position)
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        right = cos * moved[:, 0] + sin * moved[:, 1]
        ahead = -sin * moved[:, 0] + cos * moved[:, 1]
        cos, sin = np.cos(self.pitch), np.sin(self.pitch)
        depth = cos * ahead + sin * moved[:, 2]
        up = -sin * ahead + cos * moved[:, 2]
        width, height = self.size_px
        scale = self.focal * max(width, height) / np.where(np.abs(depth) < 1e-6, 1e-6, depth)
        return np.stack([width / 2 + right * scale, height / 2 - up * scale, depth], axis=1)


def cells_of(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The distinct cells [M, 2] (column, row) that projected points fall into, the least distance in each, their side.

    Cells outside the picture are included. A thing that reaches behind the camera has none.
    """
    if (pixels[:, 2] <= 0.05).any():
        return np.empty((0, 2), np.int64), np.empty(0), 1
    spread = np.ptp(pixels[:, :2], axis=0)
    side = int(np.clip(round(float(np.sqrt(spread[0] * spread[1] / CELLS))), 1, 16))
    order = np.argsort(pixels[:, 2], kind="stable")
    cells = np.floor(pixels[order, :2] / side).astype(np.int64)
    low = cells.min(axis=0)
    _, first = np.unique((cells[:, 0] - low[0]) * (np.ptp(cells[:, 1]) + 1) + cells[:, 1] - low[1], return_index=True)
    return cells[first], pixels[order[first], 2], side


def share_seen(pixels: np.ndarray, seen: np.ndarray) -> float:
    """Share of a thing's silhouette that a picture shows.

    Args:
        pixels: the projected points of its surface, [N, 3].
        seen: where the picture shows it, boolean [height, width].
    """
    cells, _, side = cells_of(pixels)
    if not len(cells):
        return 0.0
    height, width = seen.shape
    rows, columns = -(-height // side), -(-width // side)
    padded = np.zeros((rows * side, columns * side), bool)
    padded[:height, :width] = seen
    shown: np.ndarray = np.any(padded.reshape(rows, side, columns, side), axis=(1, 3))
    inside = (cells >= 0).all(axis=1) & (cells[:, 0] < columns) & (cells[:, 1] < rows)
    return float(shown[cells[inside, 1], cells[inside, 0]].sum() / len(cells))


def box_of(seen: np.ndarray) -> tuple[int, int, int, int] | None:
    """The smallest box (x0, y0, x1, y1) around what a picture shows, in pixels; None when it shows nothing."""
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def counts(box: tuple[int, int, int, int] | None, share: float) -> bool:
    """Whether an item is visible and large enough to be an item of its scene."""
    if box is None:
        return False
    sides = sorted((box[2] - box[0], box[3] - box[1]))
    return share >= LEAST_VISIBLE and sides[1] >= LEAST_SIDE_PX and sides[0] >= LEAST_SHORT_SIDE_PX


def nearest(pixels: list[np.ndarray], size_px: tuple[int, int]) -> np.ndarray:
    """Which thing is nearest in each pixel, as far as their points tell; -1 where none is.

    Each point covers a square about as large as the gaps between its thing's points.
    """
    width, height = size_px
    depth = np.full((height, width), np.inf)
    owner = np.full((height, width), -1)
    for number, projected in enumerate(pixels):
        cells, distances, side = cells_of(projected)
        step = np.arange(side)
        x = (cells[:, 0, None, None] * side + step[None, None, :] + 0 * step[None, :, None]).ravel()
        y = (cells[:, 1, None, None] * side + step[None, :, None] + 0 * step[None, None, :]).ravel()
        distance = np.repeat(distances, side * side)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        x, y, distance = x[inside], y[inside], distance[inside]
        closer = depth[y, x] > distance
        depth[y[closer], x[closer]] = distance[closer]
        owner[y[closer], x[closer]] = number
    return owner
