"""Separation of verticals as one would write it from its definition: loops, float64, and a full decomposition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def purity(vectors: np.ndarray, verticals: Sequence[str], tolerance: float = 0.0) -> list[bool]:
    """Of each row, whether its nearest other row is of its vertical; ties are not."""
    found = []
    for row, vertical in enumerate(verticals):
        best = (np.inf, False)
        for other, its in enumerate(verticals):
            if other != row:
                difference = vectors[row].astype(np.float64) - vectors[other].astype(np.float64)
                half_square = float(difference @ difference) / 2
                best = min(best, (half_square - (tolerance if its != vertical else 0.0), its == vertical))
        found.append(best[1])
    return found


def energy(vectors: np.ndarray, verticals: Sequence[str], v: str, w: str, k: int) -> float:
    """Share of v's energy in the k leading directions of w, about the mean of the verticals' means."""
    rows = {
        name: np.array([vectors[row].astype(np.float64) for row, its in enumerate(verticals) if its == name])
        for name in sorted(set(verticals))
    }
    middle = sum(group.mean(axis=0) for group in rows.values()) / len(rows)
    moment = sum(np.outer(row - middle, row - middle) for row in rows[w])
    values, directions = np.linalg.eig(moment)
    leading = [directions[:, place].real for place in np.argsort(-values.real)[:k]]
    inside = sum(float((row - middle) @ direction) ** 2 for row in rows[v] for direction in leading)
    return inside / sum(float((row - middle) @ (row - middle)) for row in rows[v])
