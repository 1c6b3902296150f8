"""Separation of verticals as one would write it from its definition: loops in float64."""

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
