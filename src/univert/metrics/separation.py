"""How far the verticals lie apart in an embedding space, as numbers (the unified-embedding paper's FIG. 3 shows it)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from univert.metrics.inputs import Vectors, check_length, check_vectors, has_queries, label_codes
from univert.metrics.ranking import rank_queries


@dataclass(frozen=True, kw_only=True)
class VerticalSeparation:
    """One vertical's name, number of images, and purity, None where there is no other image."""

    vertical: str
    images: int
    purity: float | None


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How far the verticals of a set of vectors lie apart.

    Attributes:
        purity: the share of images whose nearest other image is of their own vertical; None for a single image.
        purity_by_chance: what shuffled verticals would give; None likewise.
        verticals: each one's numbers, in order of name.
    """

    purity: float | None
    purity_by_chance: float | None
    verticals: tuple[VerticalSeparation, ...]


def separation(vectors: Vectors, verticals: Sequence[str]) -> Separation:
    """Measure how far the verticals lie apart, exactly.

    It is Recall@1 with verticals in place of products; see `rank_queries`. Ties count against: an image as near to one
    of another vertical as to its own is not pure.

    Args:
        vectors: (N, D) embeddings or learning targets.
        verticals: N names.

    Raises:
        BadInputError: arguments that do not fit.

    Example:
        >>> import numpy as np
        >>> vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> separation(vectors, ["cup", "cup", "hat", "hat"]).purity
        1.0
    """
    vectors = check_vectors(vectors)
    check_length(verticals, len(vectors), name="verticals", of="vectors")
    (codes,) = label_codes(verticals)
    sizes, count = np.bincount(codes), len(vectors)
    pure = np.zeros(count, bool)
    if has_queries(codes):
        outcome = rank_queries(vectors, codes, with_average_precision=False)
        pure[outcome.rows] = outcome.rank_of_first_hit == 1
    return Separation(
        purity=float(pure.mean()) if count > 1 else None,
        purity_by_chance=int((sizes * (sizes - 1)).sum()) / (count * (count - 1)) if count > 1 else None,
        verticals=tuple(
            VerticalSeparation(
                vertical=name, images=int(sizes[code]), purity=float(pure[codes == code].mean()) if count > 1 else None
            )
            for code, name in enumerate(sorted(set(verticals)))
        ),
    )
