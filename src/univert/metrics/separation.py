"""How far the verticals lie apart in an embedding space, as numbers (Unified FIG. 3 shows it as a picture).

- **Purity** asks for places: the share of images whose nearest other image is of their own vertical. 1: the
  verticals are islands. `purity_by_chance` is what shuffled verticals would give.
- **Energy** asks for directions. All vectors are taken about the mean of the verticals' means, so that neither a
  direction common to all of them nor the sizes of the verticals matter. An image's energy is its squared length
  from there, and a vertical's leading directions are the k eigenvectors of its second-moment matrix with the
  largest eigenvalues; not centred once more, so that the way from the common mean to the vertical's own counts
  as one of its directions. `own_energy` is the share of a vertical's energy in its own leading directions, the most
  that any k directions can hold. `other_energy` is its share in the leading directions of another vertical, the
  mean over the others. Their ratio is the overlap: 0 when every vertical has directions of its own, 1 when all
  share the same ones. Random directions would hold k / D.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from univert.core.errors import BadInputError
from univert.metrics.inputs import Codes, Vectors, check_length, check_vectors, label_codes, power_of_two_scale
from univert.metrics.ranking import TIE_TOLERANCE

DIRECTIONS = 16
"""Leading directions of a vertical that count. Few beside the usual 256 dimensions, and yet enough to hold most of a
vertical's energy."""

_SIMILARITIES_AT_ONCE = 8_000_000
"""Entries of a block of the similarity matrix (32 MB in float32)."""

_NO_ENERGY = 1e-12
"""A vertical whose mean squared distance to the common mean is below this, of unit vectors, has no directions."""


@dataclass(frozen=True, kw_only=True)
class VerticalSeparation:
    """How far one vertical lies apart.

    Attributes:
        vertical: its name.
        images: its images.
        purity: share of them whose nearest other image is of this vertical; None where there is no other image.
        own_energy: share of its energy in its own leading directions; None where all its vectors lie at the
            common mean.
        other_energy: share of its energy in another vertical's leading directions, the mean over the others; None
            likewise, and where there is no other vertical.
    """

    vertical: str
    images: int
    purity: float | None
    own_energy: float | None
    other_energy: float | None


@dataclass(frozen=True, kw_only=True)
class Separation:
    """How far the verticals of a set of vectors lie apart; the module's text defines the numbers.

    Attributes:
        directions: k, the leading directions that count.
        dimensions: D, of the space.
        purity: over all images; None for a single image.
        purity_by_chance: what shuffled verticals would give; None likewise.
        own_energy: the mean over the verticals.
        other_energy: the mean over the verticals; None where there is one.
        verticals: each one's numbers, in order of name.
    """

    directions: int
    dimensions: int
    purity: float | None
    purity_by_chance: float | None
    own_energy: float | None
    other_energy: float | None
    verticals: tuple[VerticalSeparation, ...]

    @property
    def overlap(self) -> float | None:
        """Energy in the others' directions over that in their own: 0 separate, 1 the same; None as they are."""
        return self.other_energy / self.own_energy if self.own_energy and self.other_energy is not None else None


def separation(vectors: Vectors, verticals: Sequence[str], *, directions: int = DIRECTIONS) -> Separation:
    """Measure how far the verticals lie apart; the module's text says what each number means.

    Exact. Ties count against: an image as near to one of another vertical as to its own is not pure. Memory
    beyond the inputs: a float32 copy and some 32 MB. About 5 s for 18,000 vectors of 256 on one core.

    Args:
        vectors: (N, D) embeddings or learning targets.
        verticals: N names.
        directions: k, leading directions of a vertical that count; D at most. A vertical of k images or fewer lies in
            its own leading directions entirely, whatever they are.

    Raises:
        BadInputError: arguments that do not fit, or `directions` below 1.

    Example:
        >>> import numpy as np
        >>> vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]])
        >>> separation(vectors, ["cup", "cup", "hat", "hat"], directions=1).purity
        1.0
    """
    if directions < 1:
        raise BadInputError(f"directions must be at least 1, got {directions}; {DIRECTIONS} is the default")
    vectors = check_vectors(vectors)
    check_length(verticals, len(vectors), name="verticals", of="vectors")
    names = sorted(set(verticals))
    (codes,) = label_codes(verticals)
    sizes = np.bincount(codes)
    pure = _pure(vectors, codes)
    kept = min(directions, vectors.shape[1])
    energy = energy_shares(vectors, codes, directions=kept)
    own = np.diagonal(energy)
    apart = np.ma.masked_invalid(np.where(np.eye(len(names), dtype=bool), np.nan, energy))
    others = apart.mean(axis=1).filled(np.nan)
    known = np.isfinite(own)
    pairs = int((sizes * (sizes - 1)).sum())
    count = len(vectors)
    return Separation(
        directions=kept,
        dimensions=vectors.shape[1],
        purity=float(pure.mean()) if count > 1 else None,
        purity_by_chance=pairs / (count * (count - 1)) if count > 1 else None,
        own_energy=float(own[known].mean()) if known.any() else None,
        other_energy=float(others[known].mean()) if known.any() and len(names) > 1 else None,
        verticals=tuple(
            VerticalSeparation(
                vertical=name,
                images=int(sizes[code]),
                purity=float(pure[codes == code].mean()) if count > 1 else None,
                own_energy=_finite(own[code]),
                other_energy=_finite(others[code]),
            )
            for code, name in enumerate(names)
        ),
    )


def energy_shares(vectors: Vectors, codes: Codes, *, directions: int) -> Float[np.ndarray, "V V"]:
    """Share of each vertical's energy in each vertical's leading directions.

    Args:
        vectors: (N, D).
        codes: (N,) vertical of each row: 0 to V - 1, each of them met.
        directions: k, at most D.

    Returns:
        row v, column w: the share of v's energy that lies in the span of w's leading directions, at most that in the
        span of its own. NaN where v or w has no energy.
    """
    wide = np.asarray(vectors, dtype=np.float64)
    groups = [wide[codes == code] for code in range(int(codes.max()) + 1)]
    middle = np.mean([group.mean(axis=0) for group in groups], axis=0)
    groups = [group - middle for group in groups]
    total = np.asarray([float((group**2).sum()) for group in groups])
    least = _NO_ENERGY * max(float((wide**2).sum(axis=1).mean()), np.finfo(np.float64).tiny)
    bases = [
        leading_directions(group, directions) if energy > least * len(group) else None
        for group, energy in zip(groups, total, strict=True)
    ]
    shares = np.full((len(groups), len(groups)), np.nan)
    for row, group in enumerate(groups):
        for column, basis in enumerate(bases):
            if basis is not None and bases[row] is not None:
                shares[row, column] = min(1.0, float(((group @ basis) ** 2).sum()) / total[row])
    return shares


def leading_directions(rows: Float[np.ndarray, "N D"], count: int) -> Float[np.ndarray, "D K"]:
    """Orthonormal directions that hold the most energy of some rows, at most `count`, and none without any."""
    wide = rows.shape[0] < rows.shape[1]
    # Of the two matrices of inner products the smaller one: both have the same eigenvalues but for zeros.
    energy, found = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    there = energy > 1e-12 * max(energy[-1], 0.0)
    leading = found[:, there][:, ::-1][:, :count]
    return np.asarray(np.linalg.qr(rows.T @ leading)[0] if wide else leading)


def _pure(vectors: Vectors, codes: Codes) -> npt.NDArray[np.bool_]:
    """(N,) whether the nearest other row is of the same vertical, in the order of the rows."""
    order = np.argsort(codes, kind="stable")
    rows = (vectors[order] * power_of_two_scale([vectors])).astype(np.float32)
    bounds = np.concatenate([[0], np.cumsum(np.bincount(codes))])
    half_squares = (rows**2).sum(axis=1) / 2
    tolerance = TIE_TOLERANCE * 2 * float(half_squares.max())
    chunk = max(1, _SIMILARITIES_AT_ONCE // len(rows))
    pure = np.zeros(len(rows), dtype=np.bool_)
    for start, end in itertools.pairwise(bounds.tolist()):
        for first in range(start, end, chunk):
            here = np.arange(first, min(first + chunk, end))
            similarity = rows[here] @ rows.T - half_squares
            similarity[here - first, here] = -np.inf
            own = similarity[:, start:end].max(axis=1)
            sides = (similarity[:, :start], similarity[:, end:])
            other = np.max([side.max(axis=1, initial=-np.inf) for side in sides], axis=0)
            pure[order[here]] = (own > other + tolerance) & (own > -np.inf)
    return pure


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
